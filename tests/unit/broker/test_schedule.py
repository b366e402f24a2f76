"""The broker's clock, and its next look at the time."""

from __future__ import annotations

from trunkline.broker.schedule import TICK_S, Schedule


def test_the_next_look_is_a_tick_ahead_and_a_late_one_is_noticed() -> None:
    schedule = Schedule(lambda: 5.0)
    assert schedule.now() == 5.0
    schedule.begin_look(10.0)
    assert schedule.next_look == 10.0 + TICK_S
    assert schedule.begin_look(13.0 + TICK_S) == 3.0


def test_a_look_may_be_wanted_earlier_and_never_later() -> None:
    schedule = Schedule(lambda: 0.0)
    schedule.begin_look(10.0)
    schedule.look_by(11.0)
    assert schedule.next_look == 10.0 + TICK_S
    schedule.look_by(10.1)
    assert schedule.next_look == 10.1

"""When a link counts as dead or quiet, when a write has its turn, when drops are told: by numbers alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.net.liveness import Keepalive, Quiet, Traffic, answer_time
from trunkline.actors.stream.drops import DropReport
from trunkline.actors.stream.pace import Pace, pace_of


def test_nothing_received_since_two_keepalives_is_a_dead_peer() -> None:
    alive = Keepalive(answer_time(1.0, None, control=False))
    for now in (1.0, 2.0):
        assert not alive.look(now, Traffic(7))
        alive.asked(now, Traffic(7))
    assert alive.due() == 3.0
    assert not alive.look(2.9, Traffic(7))
    assert alive.look(3.0, Traffic(7))


def test_any_byte_is_a_sign_of_life() -> None:
    alive = Keepalive(2.0)
    for second in range(50):
        alive.asked(float(second), Traffic(second // 2))
        assert not alive.look(second + 0.5, Traffic(second // 2))


def test_a_keepalive_behind_our_own_data_waits_for_the_peer_to_take_them() -> None:
    alive = Keepalive(2.0)
    for second in range(20):  # 20 bytes of our own are ahead; the peer takes one each second
        traffic = Traffic(0, 20, 20 - second)
        assert not alive.look(float(second), traffic)
        alive.asked(float(second), traffic)
    assert not alive.look(20.0, Traffic(0, 20, 0))  # now it has the keepalive, and two seconds
    assert not alive.look(21.9, Traffic(0, 20, 0))
    assert alive.look(22.0, Traffic(0, 20, 0))


def test_a_peer_that_takes_nothing_and_what_a_frozen_one_takes_later_count_as_silence() -> None:
    stuck = Keepalive(2.0)
    stuck.asked(0.0, Traffic(0, 100, 60))
    assert stuck.look(2.0, Traffic(0, 100, 60))
    frozen = Keepalive(2.0)
    frozen.asked(0.0, Traffic(0, 100, 0))
    for tenth in range(1, 20):  # its kernel takes what is written all the time
        assert not frozen.look(tenth / 10, Traffic(0, 100 + tenth, 0))
    assert frozen.look(2.0, Traffic(0, 130, 0))


def test_a_peer_that_is_not_read_from_is_excused() -> None:
    alive = Keepalive(2.0)
    alive.asked(0.0, Traffic(0))
    alive.excuse()
    assert not alive.look(100.0, Traffic(0))
    alive.asked(100.0, Traffic(0))
    assert alive.look(102.0, Traffic(0))


@pytest.mark.parametrize(
    ("every_s", "timeout_ms", "control", "seconds"),
    [
        (0.05, None, False, 1.0),
        (1.0, None, False, 2.0),
        (60.0, None, False, 120.0),
        (1.0, None, True, 2.0),
        (20.0, None, True, 20.0),
        (180.0, None, True, 20.0),
        (20.0, 500, True, 0.5),
        (20.0, 90_000, False, 90.0),
        (20.0, 0, True, None),
    ],
)
def test_the_time_for_an_answer(
    every_s: float, timeout_ms: int | None, control: bool, seconds: float | None
) -> None:
    assert answer_time(every_s, timeout_ms, control=control) == seconds
    if seconds is None:
        alive = Keepalive(seconds)
        alive.asked(0.0, Traffic(0))
        assert not alive.look(1e9, Traffic(0))


def test_a_message_on_its_way_is_data() -> None:
    quiet = Quiet(4.0, 0.0)
    for second in range(30):
        assert not quiet.look(float(second), 0.0, second // 2)
    assert not quiet.look(31.9, 0.0, 14)
    assert quiet.look(32.1, 0.0, 14)
    assert not Quiet(4.0, 0.0).look(5.0, 1.5, None)
    assert Quiet(4.0, 0.0).look(5.5, 1.5, None)


@given(st.integers(1, 20), st.lists(st.floats(0, 0.6), min_size=1, max_size=100))
def test_no_second_has_more_writes_than_the_limit(count: int, gaps: list[float]) -> None:
    pace, now, turns = Pace(count, 1.0), 0.0, []
    for gap in gaps:
        now += gap
        turn = pace.reserve(now, float("inf"))
        assert turn is not None
        assert turn >= now
        turns.append(turn)
    assert turns == sorted(turns)
    for first, last in zip(turns, turns[count:], strict=False):
        assert last - first > 1.0


def test_a_turn_after_the_deadline_is_not_taken() -> None:
    pace = pace_of("2/s")
    assert pace is not None
    assert [pace.reserve(0.0, 0.5) for _ in range(3)] == [0.0, 0.0, None]
    assert pace.reserve(0.1, 5.0) == 1.05
    assert pace_of(None) is None


def test_drops_are_told_at_the_first_and_then_every_ten_seconds() -> None:
    report = DropReport()
    assert report.due(0, 0.0) == 0
    assert report.due(3, 1.0) == 3
    assert report.due(500, 1.1) == 0
    assert report.due(700, 10.9) == 0
    assert report.due(700, 11.0) == 697
    assert report.due(700, 99.0) == 0

"""The life of a link: its table, each decision, and long random lives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.actors.net.backoff import STABLE_S, Backoff
from trunkline.actors.stream.flapping import FREE, MOST_S, Flapping, Turns
from trunkline.actors.stream.link import (
    TRANSITIONS,
    Action,
    Connect,
    Event,
    GiveUp,
    LinkLife,
    Lost,
    Opened,
    Phase,
    TellFailure,
    Wait,
)
from trunkline.wire import state as public
from trunkline.wire.state import State


def life(*, reconnects: bool = True, retry: int = 0, max_ms: int | None = None) -> LinkLife:
    backoff = Backoff(100, max_ms=max_ms, retry=retry, rng=lambda: 0.0)
    return LinkLife(reconnects, backoff, Flapping(Turns(1.0)))


def opened(**options: object) -> LinkLife:
    made = life(**options)  # type: ignore[arg-type]
    made.dial()
    made.note_opened(0.0)
    return made


def failed_again(made: LinkLife, now: float) -> list[Action]:
    """The link is lost at `now`, and the next attempt fails."""
    made.note_loss(now)
    made.note_parted()
    made.end_wait(now)
    return made.note_failure(is_refusal=False)


def reach(start: tuple[Phase, State]) -> set[tuple[Phase, State]]:
    """All pairs of a phase and a state that the table leads to."""
    found, todo = {start}, [start]
    while todo:
        phase, _ = todo.pop()
        for (before, _event), after in TRANSITIONS.items():
            if before is phase and after not in found:
                found.add(after)
                todo.append(after)
    return found


# the table


def test_every_phase_is_reached_and_every_event_has_its_use() -> None:
    reached = reach((Phase.NEW, State.DIALING))
    assert {phase for phase, _ in reached} == set(Phase)
    assert {state for _, state in reached} == set(State)
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_every_phase_but_the_last_can_be_closed_and_nothing_follows_then() -> None:
    closable = {phase for phase, event in TRANSITIONS if event is Event.CLOSED}
    assert closable == set(Phase) - {Phase.CLOSED}
    assert all(TRANSITIONS[phase, Event.CLOSED][0] is Phase.CLOSED for phase in closable)
    assert not [row for row in TRANSITIONS if row[0] is Phase.CLOSED]


def test_each_row_is_a_legal_change_of_the_public_state() -> None:
    for phase, state in reach((Phase.NEW, State.DIALING)):
        for (before, event), (_, after) in TRANSITIONS.items():
            if before is phase:
                is_first = event is Event.TAKEN_OVER  # nobody has seen the state of this worker yet
                assert is_first or public.check(state, after) is after


def test_a_phase_before_the_end_has_one_public_state() -> None:
    states: dict[Phase, set[State]] = {}
    for phase, state in reach((Phase.NEW, State.DIALING)):
        states.setdefault(phase, set()).add(state)
    assert states.pop(Phase.CLOSED) == {State.CLOSED, State.LOST, State.FAILED}
    assert all(len(seen) == 1 for seen in states.values())


# each decision


def test_the_first_attempt_opens_the_link() -> None:
    made = life()
    made.dial()
    assert (made.phase, made.state, made.had_link) == (Phase.CONNECTING, State.DIALING, False)
    assert made.note_opened(5.0) == [Opened(None)]
    assert (made.phase, made.state, made.had_link, made.reconnects) == (
        Phase.OPEN,
        State.OPEN,
        True,
        0,
    )


def test_the_first_attempt_is_the_only_attempt_at_the_first_link() -> None:
    made = life()
    made.dial()
    assert made.note_failure(is_refusal=False) == []
    assert (made.phase, made.state, made.had_link) == (Phase.FAILED, State.FAILED, False)
    made.close()
    assert (made.phase, made.state) == (Phase.CLOSED, State.FAILED)


def test_a_first_link_that_cannot_be_used_has_failed() -> None:
    made = opened()
    assert made.note_failure(is_refusal=False) == []
    assert made.state is State.FAILED


def test_a_lost_link_is_dialled_again_after_a_wait() -> None:
    made = opened()
    assert made.note_loss(3.0) == [Lost(is_final=False)]
    assert (made.phase, made.state) == (Phase.PARTING, State.DOWN)
    assert made.note_parted() == [Wait(0.1)]
    assert made.end_wait(3.1) == [Connect()]
    assert made.phase is Phase.RECONNECTING
    assert made.note_opened(4.5) == [Opened(1.5)]
    assert (made.state, made.reconnects) == (State.OPEN, 1)


def test_without_reconnect_a_lost_link_is_the_end() -> None:
    made = opened(reconnects=False)
    assert made.note_loss(3.0) == [Lost(is_final=True)]
    assert made.note_parted() == []
    assert (made.phase, made.state) == (Phase.LOST, State.LOST)
    made.close()
    assert (made.phase, made.state) == (Phase.CLOSED, State.LOST)


def test_a_failed_attempt_is_told_with_the_next_wait() -> None:
    made = opened()
    first, second = failed_again(made, 3.0)
    assert isinstance(second, Wait)
    assert first == TellFailure(second.seconds)
    assert second.seconds > 0.1
    assert made.phase is Phase.WAITING


def test_after_enough_failures_in_a_row_the_link_is_given_up() -> None:
    made = opened(retry=2)
    failed_again(made, 3.0)
    made.end_wait(4.0)
    assert made.note_failure(is_refusal=False) == [GiveUp(2)]
    assert (made.phase, made.state) == (Phase.FAILED, State.FAILED)


def test_failures_of_the_backoff_count_after_a_loss_too() -> None:
    backoff = Backoff(100, retry=1)
    made = LinkLife(True, backoff, Flapping(Turns(1.0)))
    made.take_over(0.0)
    backoff.failed()
    assert made.note_parted() == [GiveUp(1)]
    assert made.state is State.FAILED


def test_a_failure_is_no_event_between_two_attempts() -> None:
    made = opened()
    made.note_loss(1.0)
    with pytest.raises(ValueError, match="a link that is parting cannot be failed"):
        made.note_failure(is_refusal=False)


def test_a_new_link_forgives_the_failures_before() -> None:
    made = opened(retry=2)
    failed_again(made, 3.0)
    made.end_wait(4.0)
    made.note_opened(4.0)
    assert isinstance(failed_again(made, 5.0)[0], TellFailure)


def test_a_refusal_is_followed_by_the_longest_wait() -> None:
    made = opened(max_ms=7000)
    made.note_loss(3.0)
    made.note_parted()
    made.end_wait(3.1)
    assert made.note_failure(is_refusal=True)[1] == Wait(7.0)


def test_the_peer_may_ask_for_a_longer_wait() -> None:
    made = opened()
    made.note_loss(3.0)
    made.note_parted()
    made.end_wait(3.1)
    assert made.note_failure(is_refusal=False, retry_after_s=90.0)[1] == Wait(90.0)


def test_a_link_that_held_makes_the_waits_short_again() -> None:
    made = opened()
    failed_again(made, 1.0)
    made.end_wait(2.0)
    made.note_opened(2.0)
    made.note_loss(2.0 + STABLE_S)
    assert made.note_parted() == [Wait(0.1)]


def test_a_link_that_flaps_waits_for_its_turn() -> None:
    turns = Turns(1.0)
    made = LinkLife(True, Backoff(100, rng=lambda: 0.0), Flapping(turns))
    made.dial()
    made.note_opened(100.0)
    for _ in range(FREE):
        made.note_loss(100.0)
        made.note_parted()
        assert made.end_wait(100.0) == [Connect()]
        made.note_opened(100.0)
    made.note_loss(100.0)
    made.note_parted()
    turns.reserve(100.0)  # another worker's link
    assert made.end_wait(100.0) == [Wait(1.0)]
    assert (made.phase, made.state) == (Phase.QUEUEING, State.DOWN)
    assert made.end_wait(101.0) == [Connect()]
    assert made.phase is Phase.RECONNECTING


def test_a_worker_that_replaces_another_begins_with_a_lost_link() -> None:
    made = life()
    made.take_over(10.0)
    assert (made.phase, made.state, made.had_link) == (Phase.PARTING, State.DOWN, True)
    assert made.note_parted() == [Wait(0.1)]
    made.end_wait(11.0)
    assert made.note_opened(12.5) == [Opened(2.5)]


def test_closing_ends_a_link_that_is_open_or_being_dialled() -> None:
    for made in (life(), opened()):
        made.close()
        assert (made.phase, made.state) == (Phase.CLOSED, State.CLOSED)
    waiting = opened()
    failed_again(waiting, 1.0)
    waiting.close()
    assert waiting.state is State.CLOSED
    assert waiting.end_wait(2.0) == [], "an event that comes too late"
    assert waiting.phase is Phase.CLOSED


def test_a_loss_is_no_event_of_a_link_that_is_not_open() -> None:
    made = opened()
    made.note_loss(1.0)
    with pytest.raises(ValueError, match="a link that is parting cannot be broken"):
        made.note_loss(1.0)


# long lives

STEPS: dict[str, Callable[[LinkLife, float, float], list[Action] | None]] = {
    "dial": lambda made, now, number: made.dial(),
    "take over": lambda made, now, number: made.take_over(now),
    "opened": lambda made, now, number: made.note_opened(now),
    "failed": lambda made, now, number: made.note_failure(is_refusal=False),
    "refused": lambda made, now, number: made.note_failure(is_refusal=True, retry_after_s=number),
    "lost": lambda made, now, number: made.note_loss(now),
    "parted": lambda made, now, number: made.note_parted(),
    "waited": lambda made, now, number: made.end_wait(now),
    "close": lambda made, now, number: made.close(),
}
"""Each event by its name, at a time and with a number of seconds."""

_OFTEN = [name for name in STEPS if name != "close"] * 4 + ["close"]


def inner(made: LinkLife) -> tuple[object, ...]:
    backoff = {
        name: value for name, value in vars(vars(made)["_backoff"]).items() if name != "_rng"
    }
    flapping = dict(vars(vars(made)["_flapping"]))
    return made.phase, made.state, made.had_link, made.reconnects, backoff, flapping


def waits(actions: Iterable[Action]) -> list[float]:
    return [action.seconds for action in actions if isinstance(action, Wait)]


@settings(max_examples=400, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(_OFTEN), st.floats(0, 30), st.floats(0, 1000)), max_size=120
    ),
    reconnects=st.booleans(),
    retry=st.integers(0, 3),
    rng=st.floats(0, 1),
)
def test_no_sequence_of_events_leaves_the_table(
    steps: list[tuple[str, float, float]], reconnects: bool, retry: int, rng: float
) -> None:
    made = LinkLife(reconnects, Backoff(100, retry=retry, rng=lambda: rng), Flapping(Turns(1.0)))
    now = 1000.0
    told = losses = 0
    for name, seconds, number in steps:
        now += seconds
        before, phase = inner(made), made.phase
        try:
            actions = STEPS[name](made, now, number) or []
        except ValueError:
            assert inner(made) == before, "an event that is not allowed has changed something"
            continue
        after = (made.phase, made.state)
        if phase is Phase.CLOSED:
            assert inner(made) == before
            assert not actions, "closed is final"
            continue
        assert after in [way for (start, _), way in TRANSITIONS.items() if start is phase]
        # Each phase that waits for time has one wait with an end, and each attempt is ordered once.
        assert len(waits(actions)) == (made.phase in (Phase.WAITING, Phase.QUEUEING))
        assert all(0 <= wait < math.inf for wait in waits(actions))
        assert made.phase is not Phase.QUEUEING or waits(actions)[0] <= MOST_S
        assert actions.count(Connect()) == (made.phase is Phase.RECONNECTING)
        losses += name == "lost"
        told += sum(isinstance(action, Lost) for action in actions)
        assert told == losses, "an outage is told once for each loss"
        assert not any(
            isinstance(action, Lost) and action.is_final is reconnects for action in actions
        )


@settings(max_examples=200, deadline=None)
@given(
    outcomes=st.lists(st.sampled_from(["opened", "failed", "refused"]), max_size=60),
    held=st.floats(0, 30),
    retry=st.integers(0, 4),
)
def test_a_link_that_is_to_be_dialled_again_is_open_or_given_up_in_the_end(
    outcomes: list[str], held: float, retry: int
) -> None:
    """Carry out each action as the actor does: the life never stands still without an order."""
    made = LinkLife(True, Backoff(100, retry=retry), Flapping(Turns(1.0)))
    made.take_over(0.0)
    now, todo = 0.0, made.note_parted()
    left = iter(outcomes)
    while todo:
        action, *todo = todo
        if isinstance(action, Wait):
            now += action.seconds
            todo += made.end_wait(now)
        elif isinstance(action, Connect):
            outcome = next(left, None)
            if outcome is None:
                break
            todo += STEPS[outcome](made, now, 1.0) or []
        elif isinstance(action, Opened):
            now += held
            todo += made.note_loss(now)
        elif isinstance(action, Lost):
            todo += made.note_parted()
    if todo or made.phase is not Phase.RECONNECTING:
        assert made.phase is Phase.FAILED
        assert retry

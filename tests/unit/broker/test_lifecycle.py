"""The life of a connection in the broker: each row of the table, each decision, and any order of events."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trunkline.broker.lifecycle import (
    CLOSE_S,
    STATES,
    TRANSITIONS,
    Action,
    CloseWorker,
    Event,
    FailDials,
    Forget,
    GiveUp,
    KillWorker,
    Life,
    OrderWorker,
    Phase,
    TellEnd,
    WaitForNext,
)
from trunkline.broker.supervisor import CRASHES
from trunkline.wire.state import State

HOW = "was killed by SIGKILL"


def life_in(phase: Phase, *, restart: bool = True) -> Life:
    """A life that has come to this phase by the shortest way."""
    life = Life(restart)
    if phase in (Phase.STARTING, Phase.SERVING, Phase.RESTARTING, Phase.FAILED):
        life.order_worker()
    if phase in (Phase.SERVING, Phase.RESTARTING):
        life.note_worker()
    if phase is Phase.RESTARTING:
        life.lose_worker(0.0, HOW, is_dialled=False)
    if phase is Phase.FAILED:
        life.restart = False
        life.refuse_worker(0.0, HOW, is_dialled=False)
        life.restart = restart
    if phase in (Phase.ENDING, Phase.ENDED):
        life.end(0.0)
    if phase is Phase.ENDED:
        life.look_at_time(CLOSE_S)
    assert life.phase is phase
    return life


ROWS = {
    (Phase.NEW, Event.ORDERED): Phase.STARTING,
    (Phase.NEW, Event.CAME): Phase.SERVING,
    (Phase.NEW, Event.GIVEN_UP): Phase.FAILED,
    (Phase.NEW, Event.TOLD_TO_END): Phase.ENDING,
    (Phase.NEW, Event.REPORTED): Phase.NEW,
    (Phase.NEW, Event.DIAL_FAILED): Phase.NEW,
    (Phase.STARTING, Event.ORDERED_AGAIN): Phase.STARTING,
    (Phase.STARTING, Event.CAME): Phase.SERVING,
    (Phase.STARTING, Event.CRASHED): Phase.RESTARTING,
    (Phase.STARTING, Event.GIVEN_UP): Phase.FAILED,
    (Phase.STARTING, Event.TOLD_TO_END): Phase.ENDING,
    (Phase.STARTING, Event.REPORTED): Phase.STARTING,
    (Phase.STARTING, Event.DIAL_FAILED): Phase.STARTING,
    (Phase.SERVING, Event.CAME): Phase.SERVING,
    (Phase.SERVING, Event.CRASHED): Phase.RESTARTING,
    (Phase.SERVING, Event.GIVEN_UP): Phase.FAILED,
    (Phase.SERVING, Event.TOLD_TO_END): Phase.ENDING,
    (Phase.SERVING, Event.REPORTED): Phase.SERVING,
    (Phase.SERVING, Event.DIAL_FAILED): Phase.SERVING,
    (Phase.RESTARTING, Event.ORDERED): Phase.STARTING,
    (Phase.RESTARTING, Event.CAME): Phase.RESTARTING,
    (Phase.RESTARTING, Event.CRASHED): Phase.RESTARTING,
    (Phase.RESTARTING, Event.GIVEN_UP): Phase.FAILED,
    (Phase.RESTARTING, Event.TOLD_TO_END): Phase.ENDING,
    (Phase.RESTARTING, Event.REPORTED): Phase.RESTARTING,
    (Phase.RESTARTING, Event.DIAL_FAILED): Phase.RESTARTING,
    (Phase.FAILED, Event.CAME): Phase.FAILED,
    (Phase.FAILED, Event.GIVEN_UP): Phase.FAILED,
    (Phase.FAILED, Event.TOLD_TO_END): Phase.ENDING,
    (Phase.FAILED, Event.REPORTED): Phase.FAILED,
    (Phase.FAILED, Event.DIAL_FAILED): Phase.FAILED,
    (Phase.ENDING, Event.CAME): Phase.ENDING,
    (Phase.ENDING, Event.GIVEN_UP): Phase.ENDING,
    (Phase.ENDING, Event.FORGOTTEN): Phase.ENDED,
    (Phase.ENDING, Event.REPORTED): Phase.ENDING,
    (Phase.ENDING, Event.DIAL_FAILED): Phase.ENDING,
}
"""Written out, so that a change of the table is a change of two files."""


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("phase", Phase)
def test_each_pair_of_phase_and_event_leads_where_the_table_says(
    phase: Phase, event: Event
) -> None:
    assert TRANSITIONS.get((phase, event)) is ROWS.get((phase, event))
    life = life_in(phase)
    if (phase, event) in ROWS:
        life._go(event)
        assert life.phase is ROWS[phase, event]
    else:
        with pytest.raises(
            ValueError, match=f"a connection that is {phase.value} cannot be {event.value}"
        ):
            life._go(event)
        assert life.phase is phase


BRINGS = {Event.CRASHED: State.DOWN, Event.GIVEN_UP: State.FAILED, Event.DIAL_FAILED: State.FAILED}
"""Written out, as `ROWS` is."""


@pytest.mark.parametrize(("phase", "event"), ROWS)
@pytest.mark.parametrize("before", State)
def test_each_event_brings_its_state_or_leaves_the_state(
    phase: Phase, event: Event, before: State
) -> None:
    assert STATES.get(event) is BRINGS.get(event)
    life = life_in(phase)
    life.state = before
    life._go(event)
    assert life.state is BRINGS.get(event, before)


@pytest.mark.parametrize("state", State)
def test_the_state_is_the_one_that_the_worker_reports(state: State) -> None:
    life = life_in(Phase.SERVING)
    life.note_report(state)
    assert (life.phase, life.state) == (Phase.SERVING, state)


def test_a_new_connection_is_dialing_until_its_worker_reports_or_is_lost() -> None:
    life = life_in(Phase.SERVING)
    assert life.state is State.DIALING
    life.lose_worker(0.0, HOW, is_dialled=False)
    assert life.state is State.DOWN


def test_dials_that_fail_are_answered_and_the_end_is_another_event() -> None:
    life = life_in(Phase.SERVING)
    assert life.fail_dials({"text": "refused"}) == [FailDials({"text": "refused"})]
    assert (life.phase, life.state) == (Phase.SERVING, State.FAILED)
    assert life.end(0.0) == [CloseWorker()]
    assert life.state is State.FAILED


def test_the_first_worker_has_incarnation_one() -> None:
    assert Life(True).order_worker() == [OrderWorker(1)]


def test_an_adopted_connection_goes_on_from_the_incarnation_of_its_worker() -> None:
    life = Life(True, 7)
    life.note_worker()
    [wait] = life.lose_worker(0.0, HOW, is_dialled=False)
    assert wait == WaitForNext(0.0, HOW)
    assert life.look_at_time(0.0) == [OrderWorker(8)]


def test_a_worker_may_be_heard_of_twice() -> None:
    life = life_in(Phase.SERVING)
    life.note_worker()
    assert life.phase is Phase.SERVING


def test_a_late_word_of_a_dead_worker_puts_the_next_one_off_until_its_end_is_told() -> None:
    life = life_in(Phase.RESTARTING)
    life.note_worker()
    assert life.phase is Phase.RESTARTING
    assert life.look_at_time(10.0) == []
    life.lose_worker(10.0, HOW, is_dialled=False)
    assert life.look_at_time(20.0) == [OrderWorker(2)]


def test_only_an_order_without_an_answer_is_given_to_the_next_spawner() -> None:
    assert life_in(Phase.STARTING).order_again() == [OrderWorker(2)]
    for phase in Phase:
        if phase is not Phase.STARTING:
            assert life_in(phase).order_again() == []


def test_too_many_crashes_within_the_window_end_it_and_say_so() -> None:
    life = life_in(Phase.STARTING)
    for _ in range(CRASHES):
        [wait] = life.lose_worker(0.0, HOW, is_dialled=False)
        assert isinstance(wait, WaitForNext)
        life.look_at_time(wait.due)
    assert life.lose_worker(0.0, HOW, is_dialled=False) == [
        GiveUp(", 5 crashes within 30 s were too many")
    ]
    assert life.phase is Phase.FAILED


def test_without_restart_the_first_crash_is_the_last() -> None:
    assert life_in(Phase.SERVING, restart=False).lose_worker(0.0, HOW, is_dialled=False) == [
        GiveUp("")
    ]


def test_a_connection_that_has_failed_is_not_started_by_a_late_crash() -> None:
    life = life_in(Phase.FAILED)
    life.note_worker()
    assert life.lose_worker(100.0, HOW, is_dialled=False) == [GiveUp("")]


@pytest.mark.parametrize("restart", [True, False])
def test_a_worker_lost_during_a_dial_fails_the_dial_and_ends_the_connection(restart: bool) -> None:
    life = life_in(Phase.SERVING, restart=restart)
    assert life.lose_worker(0.0, HOW, is_dialled=True) == [
        FailDials(),
        CloseWorker(),
        TellEnd(),
        Forget(),
    ]
    assert life.phase is Phase.ENDED


def test_a_refused_first_worker_fails_the_dial() -> None:
    life = life_in(Phase.STARTING)
    assert life.refuse_worker(0.0, HOW, is_dialled=True) == [FailDials(), CloseWorker()]
    assert life.look_at_time(CLOSE_S) == [Forget()]


def test_a_refusal_while_it_ends_promises_no_other_worker() -> None:
    life = life_in(Phase.STARTING)
    life.end(0.0)
    assert life.refuse_worker(0.0, HOW, is_dialled=False) == [GiveUp("")]
    assert life.phase is Phase.ENDING


def test_a_worker_that_ends_when_told_takes_the_connection_along() -> None:
    life = life_in(Phase.SERVING)
    assert life.end(5.0) == [CloseWorker()]
    assert life.end(6.0) == []
    assert life.look_at_time(5.0 + CLOSE_S / 2) == []
    assert life.lose_worker(6.5, HOW, is_dialled=False) == [TellEnd(), Forget()]


def test_a_worker_that_does_not_end_in_time_is_killed_until_it_has_ended() -> None:
    life = life_in(Phase.SERVING)
    life.end(0.0)
    assert life.look_at_time(CLOSE_S) == [KillWorker()]
    assert life.look_at_time(CLOSE_S + 1) == [KillWorker()]
    assert life.lose_worker(CLOSE_S + 2, HOW, is_dialled=False) == [TellEnd(), Forget()]


def test_a_connection_between_two_workers_ends_at_once() -> None:
    life = life_in(Phase.RESTARTING)
    assert life.end(0.0) == [CloseWorker(), TellEnd(), Forget()]
    assert life.look_at_time(100.0) == []


def test_the_end_of_a_connection_whose_worker_is_still_to_come_waits_for_it() -> None:
    life = life_in(Phase.STARTING)
    assert life.end(0.0) == [CloseWorker()]
    life.note_worker()
    assert life.look_at_time(CLOSE_S) == [KillWorker()]


class AnyOrderOfEvents(RuleBasedStateMachine):
    """The router's promises about the events it tells: a process ends once, an order is answered once or lost
    with its spawner. All else comes in any order, READY of dead workers included."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Life(True)
        self.now = 0.0
        self.incarnations: list[int] = []
        self.running = 0
        self.ordered = 0
        self.was_told_to_end = False
        self.forgotten = 0
        self.failed = False
        self.note(self.life.order_worker())

    def note(self, actions: list[Action]) -> None:
        for action in actions:
            assert not self.forgotten, "an action after the end"
            if isinstance(action, OrderWorker):
                assert not self.was_told_to_end, "an ended connection was started again"
                assert not self.failed, "a failed connection was started again"
                assert self.running == 0, "two workers at once"
                assert self.ordered == 0, "two orders at once"
                assert not self.incarnations or action.incarnation > self.incarnations[-1]
                self.incarnations.append(action.incarnation)
                self.ordered += 1
            elif isinstance(action, Forget):
                assert self.running == 0, "forgotten with a worker"
                self.forgotten += 1
            elif isinstance(action, KillWorker):
                assert self.running == 1, "a kill without a worker"
            elif isinstance(action, WaitForNext):
                assert not self.was_told_to_end, "an end that promises another worker"
                assert action.due >= self.now
            elif isinstance(action, CloseWorker):
                self.was_told_to_end = True
            elif isinstance(action, GiveUp):
                self.failed = True

    def is_over(self) -> bool:
        return self.life.phase is Phase.ENDED

    @precondition(lambda self: self.ordered and not self.is_over())
    @rule()
    def worker_comes(self) -> None:
        self.ordered -= 1
        self.running = 1
        self.life.note_worker()

    @precondition(lambda self: self.running and not self.is_over())
    @rule()
    def worker_is_heard_of_again(self) -> None:
        self.life.note_worker()

    @precondition(lambda self: not self.running and not self.ordered and not self.is_over())
    @rule()
    def dead_worker_is_heard_of(self) -> None:
        self.running = 1  # until its end is told, for all that the router knows
        self.life.note_worker()

    @precondition(lambda self: self.running and not self.is_over())
    @rule(is_dialled=st.booleans())
    def worker_is_lost(self, is_dialled: bool) -> None:
        self.running = 0
        self.note(self.life.lose_worker(self.now, HOW, is_dialled=is_dialled))
        if self.life.phase is Phase.RESTARTING:
            assert self.life.state is State.DOWN
        if self.life.phase is Phase.FAILED:
            assert self.life.state is State.FAILED

    @precondition(lambda self: self.ordered and not self.is_over())
    @rule(is_dialled=st.booleans())
    def order_is_refused(self, is_dialled: bool) -> None:
        self.ordered -= 1
        self.note(self.life.refuse_worker(self.now, HOW, is_dialled=is_dialled))

    @precondition(lambda self: not self.is_over())
    @rule()
    def spawner_is_replaced(self) -> None:
        self.ordered = 0
        self.note(self.life.order_again())

    @precondition(lambda self: self.running and not self.is_over())
    @rule(state=st.sampled_from(State))
    def worker_reports(self, state: State) -> None:
        before = self.life.phase
        self.life.note_report(state)
        assert (self.life.phase, self.life.state) == (before, state)

    @precondition(lambda self: not self.is_over())
    @rule()
    def dials_fail(self) -> None:
        before = self.life.phase
        self.note(self.life.fail_dials())
        assert (self.life.phase, self.life.state) == (before, State.FAILED)

    @precondition(lambda self: not self.is_over())
    @rule()
    def end(self) -> None:
        self.note(self.life.end(self.now))
        assert self.life.phase in (Phase.ENDING, Phase.ENDED)

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, CLOSE_S, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.note(self.life.look_at_time(self.now))

    @invariant()
    def times_are_set_in_their_phase_only(self) -> None:
        assert (self.life.restart_at is not None) is (self.life.phase is Phase.RESTARTING)
        assert (self.life.closing_at is not None) is (
            self.life.phase in (Phase.ENDING, Phase.ENDED)
        )
        assert self.forgotten == (self.life.phase is Phase.ENDED)

    def teardown(self) -> None:
        """Any life can be brought to its end."""
        if not self.is_over():
            self.note(self.life.end(self.now))
        if self.running and not self.is_over():
            self.running = 0
            self.note(self.life.lose_worker(self.now, HOW, is_dialled=False))
        self.note(self.life.look_at_time(self.now + CLOSE_S))
        assert self.forgotten == 1


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
TestAnyOrderOfEvents.settings = settings(max_examples=60, stateful_step_count=30)

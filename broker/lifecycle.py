"""The life of one connection in the broker: events in, actions out. Pure: time is passed in.

`TRANSITIONS` has every way from one phase to the next. `STATES` has the events that change the
state in the users' view. `Life._go` applies both tables, and no other code assigns a phase or a
state. The router tells a `Life` the events and carries out the returned actions in their order.

The phase says whether the connection is wanted and has a worker. The state (`trunkline.wire.state`)
belongs to the link. A living worker reports the state; after a lost worker, `STATES` gives the
state.

Two races shape the table. READY of a worker comes through ZeroMQ, its process id through the
spawner, in either order. So CAME may be told twice. Both may also arrive after the worker's end, so
CAME moves a connection on only where a worker is awaited.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from trunkline.broker.supervisor import CRASHES, WINDOW_S, Crashes
from trunkline.wire.state import State

__all__ = [
    "CLOSE_S", "STATES", "TRANSITIONS", "Action", "CloseWorker", "Event", "FailDials", "Forget", "GiveUp",
    "KillWorker", "Life", "OrderWorker", "Phase", "TellEnd", "WaitForNext",
]  # fmt: skip

CLOSE_S = 2.0
"""Seconds from CLOSE until the broker kills a worker that has not ended."""


class Phase(StrEnum):
    """Where a connection stands in the broker."""

    NEW = "new"  # no worker was ordered yet
    # a worker was ordered, and neither the worker nor the spawner has reported yet
    STARTING = "starting"
    SERVING = "serving"  # the worker runs
    RESTARTING = "restarting"  # the worker is gone, and the next one is due at a known time
    # the worker is gone and will not be replaced; holders may still ask for the reason
    FAILED = "failed"
    ENDING = "ending"  # the end was asked for; the worker may still run
    ENDED = "ended"  # the broker has forgotten the connection


class Event(StrEnum):
    """What can happen to a connection."""

    ORDERED = "ordered"  # the router orders a worker: the first, or the next one when it is due
    ORDERED_AGAIN = (
        "ordered again"  # the spawner has ended with the order, and its successor gets the order
    )
    CAME = "came"  # the worker has registered, or the spawner has told its process id
    CRASHED = "crashed"  # the worker is gone unasked, and may be replaced
    GIVEN_UP = "given up"  # the worker is gone unasked, and may not be replaced
    REPORTED = "reported"  # the worker has reported the state of its link
    DIAL_FAILED = "failed to dial"  # the Dials that wait for the connection cannot have it
    # no holder is left, or the broker stops, or a user has ordered the end
    TOLD_TO_END = "told to end"
    FORGOTTEN = "forgotten"  # no part of the connection runs any more


_ALIVE = (Phase.NEW, Phase.STARTING, Phase.SERVING, Phase.RESTARTING, Phase.FAILED)
_WITH_WORKER = (Phase.STARTING, Phase.SERVING, Phase.RESTARTING)
_UNTIL_FORGOTTEN = (*_ALIVE, Phase.ENDING)
_WITHOUT_NEED = (Phase.SERVING, Phase.RESTARTING, Phase.FAILED, Phase.ENDING)

TRANSITIONS: dict[tuple[Phase, Event], Phase] = {
    (Phase.NEW, Event.ORDERED): Phase.STARTING,
    (Phase.RESTARTING, Event.ORDERED): Phase.STARTING,
    (Phase.STARTING, Event.ORDERED_AGAIN): Phase.STARTING,
    (Phase.NEW, Event.CAME): Phase.SERVING,  # a worker of the previous broker
    (Phase.STARTING, Event.CAME): Phase.SERVING,
    **{(phase, Event.CAME): phase for phase in _WITHOUT_NEED},
    **{(phase, Event.CRASHED): Phase.RESTARTING for phase in _WITH_WORKER},
    **{(phase, Event.GIVEN_UP): Phase.FAILED for phase in _ALIVE},
    (Phase.ENDING, Event.GIVEN_UP): Phase.ENDING,
    **{(phase, Event.REPORTED): phase for phase in _UNTIL_FORGOTTEN},
    **{(phase, Event.DIAL_FAILED): phase for phase in _UNTIL_FORGOTTEN},
    **{(phase, Event.TOLD_TO_END): Phase.ENDING for phase in _ALIVE},
    (Phase.ENDING, Event.FORGOTTEN): Phase.ENDED,
}
"""The phase that follows when an event comes in a phase. Other pairs are errors of the router."""

STATES: dict[Event, State] = {
    Event.CRASHED: State.DOWN,
    Event.GIVEN_UP: State.FAILED,
    Event.DIAL_FAILED: State.FAILED,
}
"""The state that an event brings by itself. REPORTED brings the state that the worker has named;
the remaining events leave the state unchanged."""


@dataclass(frozen=True, slots=True)
class OrderWorker:
    """Order the worker of this incarnation from the spawner."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class CloseWorker:
    """Tell the worker to close its link and to end."""


@dataclass(frozen=True, slots=True)
class KillWorker:
    """Kill the worker, which did not end in time."""


@dataclass(frozen=True, slots=True)
class FailDials:
    """Tell the waiting Dials that the connection could not be opened.

    `error`: the fields of the error for the caller; None where the end of the worker is the reason.
    """

    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class WaitForNext:
    """Tell the holders that another worker takes over.

    `due`: when the next worker is ordered, in monotonic seconds. `how`: how the last worker has
    ended, in words.
    """

    due: float
    how: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Tell the holders that no worker takes over. `why`: text to append to the end's reason."""

    why: str


@dataclass(frozen=True, slots=True)
class TellEnd:
    """Tell the holders that the connection has ended as ordered."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the connection and its files."""


Action = (
    OrderWorker | CloseWorker | KillWorker | FailDials | WaitForNext | GiveUp | TellEnd | Forget
)


@dataclass(slots=True)
class Life:
    """The phase and the state of one connection, and the figures that decide on the next phase.

    `restart`: workers that crash are replaced. `incarnation`: the number of the last worker; 0
    before the first. Times are seconds of the monotonic clock.
    """

    restart: bool
    incarnation: int = 0
    crashes: Crashes = field(default_factory=Crashes)
    phase: Phase = Phase.NEW
    state: State = State.DIALING
    has_process: bool = False
    """A worker process is known, and its end was not seen."""
    had_process: bool = False
    is_ordered: bool = False
    """A worker was ordered, and neither the worker nor the spawner has told the result."""
    restart_at: float | None = None
    """When the next worker is ordered; None outside of RESTARTING."""
    closing_at: float | None = None
    """When a worker that has not ended is killed; None while the connection is wanted."""

    def _go(self, event: Event, reported: State | None = None) -> None:
        """Apply an event to the phase and the state. `reported`: the state in a worker's report.

        Raises ValueError for an event that cannot come in this phase.
        """
        follows = TRANSITIONS.get((self.phase, event))
        if follows is None:
            raise ValueError(f"a connection that is {self.phase.value} cannot be {event.value}")
        self.phase = follows
        self.state = reported or STATES.get(event, self.state)
        if follows is not Phase.RESTARTING:
            self.restart_at = None

    def order_worker(self) -> list[Action]:
        """Order the first worker, or the next one."""
        return self._order(Event.ORDERED)

    def order_again(self) -> list[Action]:
        """Order a worker from another spawner, if the former one ended with an open order."""
        return self._order(Event.ORDERED_AGAIN) if self.phase is Phase.STARTING else []

    def _order(self, event: Event) -> list[Action]:
        self._go(event)
        self.incarnation += 1
        self.is_ordered = True
        return [OrderWorker(self.incarnation)]

    def note_worker(self) -> None:
        """Note that the worker runs: it has registered, or the spawner has told its process id."""
        self._go(Event.CAME)
        self.is_ordered = False
        self.has_process = self.had_process = True

    def note_report(self, state: State) -> None:
        """Note the state that the worker has reported of its link."""
        self._go(Event.REPORTED, state)

    def fail_dials(self, error: dict[str, Any] | None = None) -> list[Action]:
        """Fail the Dials that wait for the connection. `error`: see `FailDials`.

        The connection stays in the directory until `end`.
        """
        self._go(Event.DIAL_FAILED)
        return [FailDials(error)]

    def lose_worker(self, now: float, how: str, *, is_dialled: bool) -> list[Action]:
        """Note that the worker has ended, and decide whether another one follows.

        `how`: the end of the worker in words. `is_dialled`: a Dial waits for the connection to
        open.
        """
        self.has_process = False
        if self.phase is Phase.ENDING:
            return [TellEnd(), *self._forget()]
        return self._decide_on_next(now, how, is_dialled)

    def refuse_worker(self, now: float, how: str, *, is_dialled: bool) -> list[Action]:
        """Note that the ordered worker could not be started, and decide on the next step.

        `how`, `is_dialled`: as for `lose_worker`.
        """
        self.is_ordered = False
        return self._decide_on_next(now, how, is_dialled)

    def _decide_on_next(self, now: float, how: str, is_dialled: bool) -> list[Action]:
        """Decide what follows a lost worker: fail the Dials, wait for the next worker, or give
        up."""
        if is_dialled:
            return [*self.fail_dials(), *self.end(now)]
        may_follow = self.restart and self.phase in _WITH_WORKER
        if may_follow and self.crashes.may_restart(now):
            self._go(Event.CRASHED)
            self.restart_at = now + self.crashes.wait_s()
            return [WaitForNext(self.restart_at, how)]
        self._go(Event.GIVEN_UP)
        return [
            GiveUp(
                f", {CRASHES} crashes within {WINDOW_S:.0f} s were too many" if may_follow else ""
            )
        ]

    def end(self, now: float) -> list[Action]:
        """End the connection in good order. A second call does nothing."""
        if self.closing_at is not None:
            return []
        self._go(Event.TOLD_TO_END)
        self.closing_at = now + CLOSE_S
        if self.had_process and not self.has_process:
            return [CloseWorker(), TellEnd(), *self._forget()]
        return [CloseWorker()]

    def look_at_time(self, now: float) -> list[Action]:
        """Return the actions that are due at `now`."""
        if self.restart_at is not None and now >= self.restart_at and not self.has_process:
            return self.order_worker()
        if self.phase is Phase.ENDING and self.closing_at is not None and now >= self.closing_at:
            return [KillWorker()] if self.has_process else self._forget()
        return []

    def _forget(self) -> list[Action]:
        self._go(Event.FORGOTTEN)
        return [Forget()]

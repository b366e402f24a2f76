"""The life of a stream connection's link: a pure state machine, events in and actions out.

The machine has no socket and no clock: the caller passes the time. `TRANSITIONS` lists every step
from one phase to the next, with the state that the program sees. `LinkLife._go` alone assigns the
phase and the state. The keeper reports each event and carries out the returned actions in order.

The first link has one attempt, so that `Dial` reports a wrong address at once. A lost link is
dialled again, after waits, where option `reconnect` says so. A worker that replaces a crashed
worker begins with a lost link.

The actor cancels the keeper's tasks before it closes the link. A late event after `close` changes
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from trunkline.actors.net.backoff import Backoff
from trunkline.actors.stream.flapping import Flapping
from trunkline.wire.state import State

__all__ = [
    "TRANSITIONS", "Action", "Connect", "Event", "GiveUp", "LinkLife", "Lost", "Opened",
    "Phase", "TellFailure", "Wait",
]  # fmt: skip


class Phase(StrEnum):
    """Where the link of a connection stands."""

    NEW = "new"  # no attempt was made
    CONNECTING = "connecting"  # the first attempt runs
    OPEN = "open"  # the link is up
    PARTING = "parting"  # the link is lost, its driver is being ended, another link is to follow
    WAITING = "waiting"  # the next attempt is due after the wait by the options
    QUEUEING = "queueing"  # the next attempt waits for a turn among all flapping links
    RECONNECTING = "reconnecting"  # an attempt after the first runs
    LOST = "lost"  # the link is lost, and no other link follows
    FAILED = "failed"  # the first attempt failed, or too many attempts in a row
    CLOSED = "closed"  # the worker ends the connection


class Event(StrEnum):
    """An event in the life of a link."""

    DIALLED = "dialled"  # the first attempt begins
    TAKEN_OVER = "taken over"  # a former worker had a link, which is gone
    OPENED = "opened"  # an attempt gave a link
    FAILED = "failed"  # the first attempt failed, or the first link could not be used
    REFUSED = "refused"  # an attempt after the first failed, and another attempt follows
    GIVEN_UP = "given up"  # too many attempts in a row have failed
    BROKEN = "broken"  # the link was lost, and another link is to follow
    ENDED = "ended"  # the link was lost for good
    PARTED = "parted"  # the driver of the lost link has ended
    QUEUED = "queued"  # the wait is over, and the attempt needs a turn first
    DUE = "due"  # the wait, or the wait for the turn, is over
    CLOSED = "closed"  # the worker ends the connection


_DOWN = (Phase.PARTING, Phase.WAITING, Phase.QUEUEING, Phase.RECONNECTING)

TRANSITIONS: dict[tuple[Phase, Event], tuple[Phase, State]] = {
    (Phase.NEW, Event.DIALLED): (Phase.CONNECTING, State.DIALING),
    (Phase.NEW, Event.TAKEN_OVER): (Phase.PARTING, State.DOWN),
    (Phase.NEW, Event.CLOSED): (Phase.CLOSED, State.CLOSED),
    (Phase.CONNECTING, Event.OPENED): (Phase.OPEN, State.OPEN),
    (Phase.CONNECTING, Event.FAILED): (Phase.FAILED, State.FAILED),
    (Phase.CONNECTING, Event.CLOSED): (Phase.CLOSED, State.CLOSED),
    (Phase.OPEN, Event.BROKEN): (Phase.PARTING, State.DOWN),
    (Phase.OPEN, Event.ENDED): (Phase.LOST, State.LOST),
    (Phase.OPEN, Event.FAILED): (Phase.FAILED, State.FAILED),
    (Phase.OPEN, Event.CLOSED): (Phase.CLOSED, State.CLOSED),
    (Phase.PARTING, Event.PARTED): (Phase.WAITING, State.DOWN),
    (Phase.PARTING, Event.GIVEN_UP): (Phase.FAILED, State.FAILED),
    (Phase.WAITING, Event.QUEUED): (Phase.QUEUEING, State.DOWN),
    (Phase.WAITING, Event.DUE): (Phase.RECONNECTING, State.DOWN),
    (Phase.QUEUEING, Event.DUE): (Phase.RECONNECTING, State.DOWN),
    (Phase.RECONNECTING, Event.OPENED): (Phase.OPEN, State.OPEN),
    (Phase.RECONNECTING, Event.REFUSED): (Phase.WAITING, State.DOWN),
    (Phase.RECONNECTING, Event.GIVEN_UP): (Phase.FAILED, State.FAILED),
    **{(phase, Event.CLOSED): (Phase.CLOSED, State.CLOSED) for phase in _DOWN},
    (Phase.LOST, Event.PARTED): (Phase.LOST, State.LOST),
    # The state keeps saying how the link ended, for the figures that outlive the worker.
    (Phase.LOST, Event.CLOSED): (Phase.CLOSED, State.LOST),
    (Phase.FAILED, Event.CLOSED): (Phase.CLOSED, State.FAILED),
}
"""By phase and event: the next phase, and the state of the connection then.
A pair without a row is a fault of the caller."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Make one attempt, then call `note_opened` or `note_failure`."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for `seconds`, then call `end_wait`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Opened:
    """Serve the new link. `outage_s`: seconds without a link before; None for the first link."""

    outage_s: float | None


@dataclass(frozen=True, slots=True)
class Lost:
    """Tell the holders and the log that the link is lost, end its driver, then call `note_parted`.

    `is_final`: no other link follows."""

    is_final: bool


@dataclass(frozen=True, slots=True)
class TellFailure:
    """Log that the last attempt failed, and that the next attempt is in `wait_s` seconds."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Tell the holders and the log that no attempt follows, after `failures` failures in a row."""

    failures: int


Action = Connect | Wait | Opened | Lost | TellFailure | GiveUp


class LinkLife:
    """The phase of one connection's link, and the rules for the next phase.

    Times are seconds of the monotonic clock. An event for which `TRANSITIONS` has no row in the
    present phase raises ValueError and changes nothing."""

    def __init__(self, reconnects: bool, backoff: Backoff, flapping: Flapping) -> None:
        """`reconnects`: a lost link is dialled again. `backoff`: the waits between attempts.
        `flapping`: the turns of links that are lost again and again."""
        self.phase = Phase.NEW
        self.state = State.DIALING
        self.had_link = False
        """The connection had a link before, in this worker or in a worker before."""
        self.reconnects = 0
        """How many attempts after the first have opened a link."""
        self._does_reconnect = reconnects
        self._backoff = backoff
        self._flapping = flapping
        self._open_since = 0.0
        self._down_since = 0.0

    def _accepts(self, event: Event) -> bool:
        """Whether the event counts: False after `close`. ValueError where the table has no row."""
        if self.phase is Phase.CLOSED:
            return False
        if (self.phase, event) not in TRANSITIONS:
            raise ValueError(f"a link that is {self.phase.value} cannot be {event.value}")
        return True

    def _go(self, event: Event) -> None:
        """Change the phase and the state by the table. Nothing else assigns them."""
        self.phase, self.state = TRANSITIONS[self.phase, event]

    def dial(self) -> None:
        """Note that the first attempt begins."""
        if self._accepts(Event.DIALLED):
            self._go(Event.DIALLED)

    def take_over(self, now: float) -> None:
        """Begin with the lost link of a former worker. Holders know of the loss already.

        The first wait begins at `note_parted`."""
        if self._accepts(Event.TAKEN_OVER):
            self._go(Event.TAKEN_OVER)
            self.had_link = True
            self._down_since = now

    def note_opened(self, now: float) -> list[Action]:
        """Note that the attempt opened a link."""
        if not self._accepts(Event.OPENED):
            return []
        is_first = self.phase is Phase.CONNECTING
        self._go(Event.OPENED)
        self.had_link = True
        self._open_since = now
        if is_first:
            return [Opened(None)]
        self.reconnects += 1
        self._backoff.succeeded()
        return [Opened(now - self._down_since)]

    def note_failure(self, *, is_refusal: bool, retry_after_s: float | None = None) -> list[Action]:
        """Note that the attempt failed, or that the first link could not be used.

        `is_refusal`: the reason seldom goes away by itself (a login, a certificate).
        `retry_after_s`: seconds for which the peer wants no other attempt; None where unsaid."""
        is_later_attempt = self.phase is Phase.RECONNECTING
        if not self._accepts(Event.REFUSED if is_later_attempt else Event.FAILED):
            return []
        if not is_later_attempt:
            self._go(Event.FAILED)
            return []
        self._backoff.failed(refused=is_refusal, retry_after_s=retry_after_s)
        wait_s = self._backoff.next_wait()
        if wait_s is None:
            return self._give_up()
        self._go(Event.REFUSED)
        return [TellFailure(wait_s), Wait(wait_s)]

    def note_loss(self, now: float) -> list[Action]:
        """Note that the open link is lost."""
        # BROKEN and ENDED are allowed in the same phase, so one check serves both.
        if not self._accepts(Event.BROKEN):
            return []
        self._go(Event.BROKEN if self._does_reconnect else Event.ENDED)
        self._down_since = now
        self._backoff.link_lasted(now - self._open_since)
        self._flapping.link_lasted(now - self._open_since)
        return [Lost(is_final=not self._does_reconnect)]

    def note_parted(self) -> list[Action]:
        """Note that the driver of the lost link has ended."""
        if not self._accepts(Event.PARTED):
            return []
        if self.phase is Phase.LOST:
            self._go(Event.PARTED)
            return []
        wait_s = self._backoff.next_wait()
        if wait_s is None:
            return self._give_up()
        self._go(Event.PARTED)
        return [Wait(wait_s)]

    def end_wait(self, now: float) -> list[Action]:
        """Note that the seconds of a `Wait` are over."""
        if not self._accepts(Event.DUE):
            return []
        # After the wait by the options, a flapping link also waits for a turn: once, not again
        # after that wait.
        turn_s = self._flapping.wait(now) if self.phase is Phase.WAITING else 0.0
        if turn_s > 0:
            self._go(Event.QUEUED)
            return [Wait(turn_s)]
        self._go(Event.DUE)
        return [Connect()]

    def close(self) -> None:
        """Note that the worker ends the connection, with any link that is open or being opened."""
        if self._accepts(Event.CLOSED):
            self._go(Event.CLOSED)

    def _give_up(self) -> list[Action]:
        """End the attempts: too many have failed in a row."""
        self._go(Event.GIVEN_UP)
        return [GiveUp(self._backoff.failures)]

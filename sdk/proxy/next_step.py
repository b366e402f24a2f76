"""The decision of what a read does next: a state machine over a pocket.

Pure: no socket, no clock, no lock. `ReadCall` is one call of read or receive. Its caller
(`trunkline.proxy.reading`) asks `next_step` for a `Step`, carries the step out, and asks again
until the read is over. `TRANSITIONS` is the table of the phases of a read; each change of the phase
goes through the table.

`next_step` changes the pocket, so the caller holds the pocket's lock (`Membership.lock`) meanwhile.
An exception of a signal handler may interrupt `next_step` anywhere. A message already
taken is then in the `Hand` (see `trunkline.proxy.pocket`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from trunkline.proxy.pocket import EMPTY, LOST, Hand, Pocket, Taken
from trunkline.wire import messages

__all__ = [
    "TRANSITIONS",
    "Do",
    "Form",
    "Kept",
    "Moment",
    "Phase",
    "ReadCall",
    "Step",
    "acknowledgement",
    "ask",
]

Kept = list[tuple[int, int]]
"""Messages that the program acknowledges later: the value of `consumed` that includes the message,
and the message's ticket."""


class Form(Enum):
    """The entry wanted by a read, and how long it waits."""

    WAIT = "the oldest entry; wait for one"
    NOW = "the oldest entry; wait only for the worker's answer"
    NEWEST = "the newest message; wait only for the worker's answer"


class Phase(Enum):
    """How far one read has come."""

    START = "the read has the turn, and has done nothing yet"
    HEARD = "the pocket has all that had arrived"
    WAITING = "the read waits for the worker"
    GIVING_UP = "the worker was told that the ask is over, and has not confirmed that"
    OVER = "the read has its result"


class Do(Enum):
    """The caller's next action. Where the action is the last, `Step.taken` is the read's result."""

    HEAR = "take in what has arrived, without waiting"
    ASK = "ask the worker, and wait for what arrives"
    WAIT = "acknowledge, and wait for what the worker streams"
    GIVE_UP = "tell the worker that the ask is over, and wait for its confirmation"
    CONFIRM = "go on waiting for that confirmation"
    REJOIN = (
        "leave the turn to the control thread, which joins the connection anew; then begin again"
    )
    FIND = (
        "tell the worker that takes over of this object, and wait as LOOK; the result is the loss"
    )
    LOOK = "acknowledge, and wait a moment, listening; the result is the loss"
    PACE = "wait a moment; the result is the loss"
    TAKE = "acknowledge; the result is `taken`"
    TAKE_SLOWLY = "acknowledge, and wait a moment; the result is `taken`"
    RETURN = "nothing; the result is `taken`"


class Step(NamedTuple):
    """The decision of `next_step`: an action, and the read's result where the action is the
    last."""

    do: Do
    taken: Taken = EMPTY


class Moment(NamedTuple):
    """The state of the connection and of the clock when the caller asks for the next step."""

    closed: bool = False
    """The object was closed."""
    usable: bool = True
    """The stream can be used, or the connection has ended for good. Otherwise the holder has to
    join the connection anew."""
    orphan: bool = False
    """The worker is gone, and the next worker has not been heard yet."""
    stale: bool = False
    """The broker was lost, and this object has not joined the next one yet."""
    expired: bool = False
    """The time of the read, or the time for an answer, is over."""
    silent: bool = False
    """The last wait ended without an entry or an answer for this read."""
    confirmed: bool = False
    """The worker has confirmed that the ask is over."""


TRANSITIONS: Final[Mapping[Phase, Mapping[Do, Phase]]] = {
    Phase.START: {
        Do.HEAR: Phase.HEARD,
        Do.REJOIN: Phase.START,
        Do.PACE: Phase.OVER,
        Do.RETURN: Phase.OVER,
    },
    Phase.HEARD: {
        Do.ASK: Phase.WAITING,
        Do.WAIT: Phase.WAITING,
        Do.FIND: Phase.OVER,
        Do.LOOK: Phase.OVER,
        Do.TAKE: Phase.OVER,
    },
    Phase.WAITING: {
        Do.ASK: Phase.WAITING,
        Do.WAIT: Phase.WAITING,
        Do.GIVE_UP: Phase.GIVING_UP,
        Do.REJOIN: Phase.START,
        Do.TAKE: Phase.OVER,
        Do.TAKE_SLOWLY: Phase.OVER,
    },
    Phase.GIVING_UP: {
        Do.CONFIRM: Phase.GIVING_UP,
        Do.TAKE: Phase.OVER,
    },
    Phase.OVER: {},
}

_HEAR: Final = Step(Do.HEAR)
_ASK: Final = Step(Do.ASK)
_WAIT: Final = Step(Do.WAIT)
_REJOIN: Final = Step(Do.REJOIN)


class ReadCall:
    """One call of read or receive.

    `hand` receives the entry that the read takes. `keep`: the program acknowledges the message
    later, by its ticket.
    """

    __slots__ = ("form", "hand", "keep", "phase")

    def __init__(self, form: Form, hand: Hand | None = None, *, keep: bool = False) -> None:
        self.form = form
        self.hand = hand or Hand()
        self.keep = keep
        self.phase = Phase.START

    @property
    def blocking(self) -> bool:
        """Whether the read waits for data, not only for an answer of the worker."""
        return self.form is Form.WAIT

    def next_step(self, pocket: Pocket, moment: Moment) -> Step:
        """Decide the next action, and change the phase by the table.

        Where the action ends the read, the read's entry has been taken from the pocket.
        """
        if self.phase is Phase.START:
            step = self._start(moment)
        elif self.phase is Phase.HEARD:
            step = self._look_into(pocket, moment)
        elif self.phase is Phase.WAITING and self.form is Form.NEWEST:
            step = self._wait_for_newest(pocket, moment)
        elif self.phase is Phase.WAITING:
            step = self._wait_for_oldest(pocket, moment)
        else:
            step = self._await_confirmation(pocket, moment)
        self.phase = TRANSITIONS[self.phase][step.do]
        return step

    def _start(self, moment: Moment) -> Step:
        """The first step: listen, unless the object is closed or has to join anew."""
        if moment.closed:
            return Step(Do.PACE, LOST)
        if moment.usable:
            return _HEAR
        return Step(Do.RETURN, EMPTY) if moment.expired else _REJOIN

    def _look_into(self, pocket: Pocket, moment: Moment) -> Step:
        """The step after the pocket has received all that had arrived."""
        if moment.orphan and not pocket.items and not pocket.again:
            # The entries of the dead worker are read, and the next worker has not been heard yet.
            return Step(Do.FIND, LOST)
        if self.form is Form.NEWEST:
            if pocket.has_newest():
                return Step(Do.TAKE, self.take(pocket))
            # The worker may have a newer message. Every entry here is older, and is dropped.
            pocket.discard()
            return self._wait_for_newest(pocket, moment, has_asked=False)
        taken = self.take(pocket)
        if taken is LOST and pocket.down and not pocket.items:
            return Step(Do.LOOK, LOST)
        # Where the worker streams and has nothing more, an empty pocket means that no data is
        # there.
        must_ask = self.blocking or not pocket.stream or pocket.more
        if taken is EMPTY and must_ask:
            return self._ask_or_wait(pocket)
        return Step(Do.TAKE, taken)

    def _ask_or_wait(self, pocket: Pocket) -> Step:
        """Wait where the worker streams, else ask.

        A waiting read comes here again after each silent wait, and so repeats its ask under the
        same number: the first ask may have been sent before the worker existed.
        """
        return _WAIT if self.blocking and pocket.stream else _ASK

    def _wait_for_newest(self, pocket: Pocket, moment: Moment, *, has_asked: bool = True) -> Step:
        """The step of a `NEWEST` read: take when the worker has answered or the time is over."""
        is_answered = has_asked and not pocket.asks()
        if has_asked and moment.orphan and not is_answered:
            return _REJOIN
        if is_answered or moment.expired or moment.closed:
            return Step(Do.TAKE, self.take(pocket))
        return _ASK

    def _wait_for_oldest(self, pocket: Pocket, moment: Moment) -> Step:
        """The step of a `WAIT` or `NOW` read after each wait."""
        taken = self.take(pocket)
        is_answered = not self.blocking and not pocket.asks()
        is_over = moment.expired or moment.closed or is_answered
        if taken is EMPTY and not is_over:
            # The control thread joins the connection anew, and needs the turn that this read holds.
            if moment.orphan or (moment.stale and moment.silent):
                return _REJOIN
            return self._ask_or_wait(pocket)
        if taken is EMPTY and self.blocking and not pocket.stream and not moment.closed:
            pocket.give_up_asks()
            return Step(Do.GIVE_UP)
        if taken is LOST and not pocket.stream:
            # The worker answers each ask at once while the link is down. A program that reads in a
            # loop would spin without this pause.
            return Step(Do.TAKE_SLOWLY, LOST)
        return Step(Do.TAKE, taken)

    def _await_confirmation(self, pocket: Pocket, moment: Moment) -> Step:
        """The step of a read after giving up its ask.

        The worker may have sent a message just before it heard that the ask is over. The worker's
        confirmation comes after such a message, so the read waits for the confirmation.
        """
        if moment.confirmed or moment.silent or moment.expired or moment.closed:
            return Step(Do.TAKE, self.take(pocket))
        return Step(Do.CONFIRM)

    def take(self, pocket: Pocket) -> Taken:
        """The pocket's entry for this read, or EMPTY."""
        if self.form is Form.NEWEST:
            return pocket.take_newest(self.hand, keep=self.keep)
        return pocket.take(self.hand, keep=self.keep)


def ask(pocket: Pocket, name: bytes, form: Form) -> tuple[messages.Read, Kept]:
    """The READ by which the holder `name` asks its worker, and the messages to tell the worker
    before.

    Both count as told from now on.
    """
    said = messages.Read(
        messages.Name(name),
        pocket.ask(),
        pocket.epoch,
        pocket.consumed,
        pocket.skipped,
        form is Form.WAIT,
        form is Form.NEWEST,
        pocket.had,
        pocket.envelopes,
    )
    pocket.acked, pocket.skipped_told = pocket.consumed, pocket.skipped
    return said, pocket.tell_kept()


def acknowledgement(
    pocket: Pocket, name: bytes, *, waiting: bool
) -> tuple[messages.Ack, Kept] | None:
    """The ACK that the holder `name` owes its worker, and the messages to tell the worker before.

    Both count as told from now on. None when the holder owes nothing. `waiting`: a read still waits
    for the answer to its ask; otherwise a pending ask is given up.
    """
    is_owed = pocket.consumed > max(pocket.acked, 0) or pocket.skipped != pocket.skipped_told
    if not waiting and pocket.asks():
        pocket.give_up_asks()
        is_owed = True
    if not is_owed:
        return None
    ack = messages.Ack(
        messages.Name(name), max(0, pocket.consumed), pocket.skipped, pocket.answered
    )
    pocket.acked, pocket.skipped_told = pocket.consumed, pocket.skipped
    return ack, pocket.tell_kept()

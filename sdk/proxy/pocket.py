"""The proxy's side of reading: the entries sent ahead by the worker, and the rules of
reading.

The worker streams entries to a holder before the program reads. An entry is a message, or a mark:
a note that the link went down, came up or ended. `Pocket.take` gives the oldest message,
`Pocket.take_newest` the newest. Each returns a message, or `LOST` (at this place in the order the
link went down or ended), or `EMPTY`.

This module is pure: no socket, no clock, no lock. The user's threads and the control thread share a
pocket, and hold `Membership.lock` while they call these methods.

Ctrl-C and other signal handlers may raise an exception in the middle of a method. CPython calls
signal handlers only where a function is called and where a loop turns. So each method first
computes, and then changes the pocket in a row of assignments that calls nothing. Comments mark such
a row with ALL OR NOTHING: after an exception, either all assignments of the row were made or none.
A taken entry is in a `Hand` from the same row on, and `put_back` returns the entry to the pocket.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, Final, NamedTuple

from trunkline.wire.envelope import Mark
from trunkline.wire.loss import Loss

__all__ = ["EMPTY", "LOST", "Hand", "Pocket", "Stamped", "Taken", "Unread"]


NOT_FRESH = -(1 << 62)
"""The `Hand.number` of an entry that was put back and then taken again."""
_TICKET_BITS = 52
"""Tickets stay below the largest count that a message may carry (`trunkline.wire.messages`)."""


class _Nothing(Enum):
    LOST = "lost"
    EMPTY = "empty"


LOST: Final = _Nothing.LOST
EMPTY: Final = _Nothing.EMPTY


class Stamped(NamedTuple):
    """A message with the stamp of its run."""

    data: str | bytes
    stamp: Sequence[Any] | None
    """The stamp as the worker packed it: the run's count of entries, the time of arrival, then the
    fields of the envelope. None for a message of a worker that is gone."""
    ticket: int | None = None
    """The number by which the program acknowledges the message later; None unless taken with
    `keep`."""


Taken = str | bytes | Stamped | _Nothing


class Hand:
    """The entry that one call has taken out of a pocket and has not yet returned to the program."""

    __slots__ = ("entry", "number", "ticket", "whole")

    def __init__(self) -> None:
        self.entry: str | bytes | int | None = None
        self.number: int = 0
        """The value of `Pocket.consumed` right after the entry was taken, or `NOT_FRESH`."""
        self.ticket: int | None = None
        self.whole: Taken | None = None
        """The result of the `take`: the message, alone or `Stamped`, or `LOST`."""


class Unread(NamedTuple):
    """The entries that a recall gives back to the worker."""

    entries: Sequence[str | bytes | int]
    stamps: Sequence[tuple[int, Sequence[Any]]]
    """For each run, the index in `entries` where the run begins, and the run's stamp. The index of
    the first run may be negative: the run began with consumed entries."""


class Pocket:
    """The received and unread entries of a holder, and the state of the link.

    Two invariants tie the counters to `items`:

    * `consumed` is the number of entries read from the present worker. After a worker is lost,
      `consumed` starts at minus the number of entries left over from the lost worker, so that it
      reaches zero just when the entries of the next worker begin.
    * `appended - len(items)` is the number of the leftmost entry, as `stamps` counts entries.
    """

    __slots__ = (
        "acked", "again", "answered", "appended", "asked", "consumed", "down", "ended",
        "envelopes", "epoch", "fed", "gap", "had", "items", "loss", "marks", "more",
        "skipped", "skipped_told", "stamps", "stream", "tickets", "unsettled", "untold",
    )  # fmt: skip

    def __init__(self) -> None:
        self.items: deque[str | bytes | int] = deque()
        """Entries that were received and not consumed, the oldest first. An `int` is a mark."""
        self.epoch: int = 0
        """The number of the present epoch, from 0 for each worker. A recall begins a new epoch, and
        so do `discard` and `want_envelopes`. Entries that were sent in an earlier epoch are
        void."""
        self.consumed: int = 0
        """Entries consumed in total since this holder attached to the present worker. Below zero
        while entries of a crashed worker are still unread."""
        self.acked: int = 0
        """The value of `consumed` that the worker was last told."""
        self.stream: bool = False
        """True while the worker streams: entries come unasked. Otherwise every read has to ask."""
        self.more: bool = False
        """More entries waited at the worker when the last entries were sent."""
        self.down: bool = False
        """The last consumed mark said that the link is down."""
        self.ended: bool = False
        """A consumed mark said that the link has ended for good."""
        self.loss: Loss | None = None
        """The cause in the last consumed mark; None when the mark had no cause."""
        self.gap: bool = False
        """Entries were lost on the way, with a broker that died. The worker must send them
        again."""
        self.skipped: int = 0
        """Messages discarded by `take_newest`, in total. Telling the worker a total twice, after an
        interrupt, does no harm; a difference would count twice."""
        self.skipped_told: int = 0
        """The value of `skipped` that the worker was last told."""
        self.fed: int = 0
        """Entries received from the present worker and not given back."""
        self.marks: int = 0
        """Marks among the entries consumed from the present worker."""
        self.had: int = 0
        """Messages received from dead workers. Only the holder can know the number: a dead worker
        cannot tell how much of its last batch has arrived."""
        self.envelopes: bool = False
        """True after the first `receive`: messages are taken as `Stamped`, and the worker sends
        envelopes."""
        self.appended: int = 0
        """Entries ever added at the right end of `items`. Numbers the entries for `stamps`."""
        self.stamps: deque[tuple[int, Sequence[Any]]] = deque()
        """For every run, the number of its first entry, and the run's stamp."""
        first = int.from_bytes(os.urandom(8)) >> (64 - _TICKET_BITS)
        self.tickets: Iterator[int] = itertools.count(first)
        """The next tickets. The start is random, so that two holders of a connection do not use the
        same numbers."""
        self.unsettled: dict[int, int] = {}
        """Messages taken with `keep` and not acknowledged yet: from the ticket to the value of
        `consumed` right after the message was taken."""
        self.untold: dict[int, int] = {}
        """The part of `unsettled` that the worker has not been told yet."""
        self.asked: int = 0
        """The number of the last ask."""
        self.answered: int = 0
        """Asks up to this number were answered, or were given up."""
        self.again: tuple[Taken, ...] = ()
        """Entries put back although they count as consumed, the oldest first. `take`
        gives these entries before those of `items`."""

    def feed(
        self,
        epoch: int,
        stream: bool,
        more: bool,
        entries: Sequence[str | bytes | int],
        first: int | None = None,
        stamps: Sequence[Sequence[Any]] = (),
        answer: int = 0,
    ) -> bool:
        """Add entries that arrived from the worker.

        `first`: the entries that this holder has consumed or not yet read, as the worker counts
        them. `stamps`: the stamps of the runs, each with its count of entries first. `answer`: the
        number of the ask that these entries answer; 0 when they came unasked.

        Returns False when the entries are void. Void entries belong to an earlier epoch, or entries
        before them were lost on the way (`gap` is set then). A read that waits for a void answer
        asks again, under a new number.
        """
        if epoch < self.epoch:
            self._ask_anew(answer)
            return False
        if epoch > self.epoch:
            # The entries were faster than the recall that began their epoch. The recall comes
            # through the broker to the control thread, the entries come over the stream.
            self._void(epoch)
        if first is not None and first != self.consumed + len(self.items):
            # The worker has sent entries before these that have not arrived here.
            self.gap = True
            self._ask_anew(answer)
            return False
        number = self.appended
        runs = []
        for stamp in stamps:
            runs.append((number, stamp))
            number += stamp[0]
        appended, fed = self.appended + len(entries), self.fed + len(entries)
        answered = max(self.answered, answer)
        # ALL OR NOTHING
        self.stream = stream
        self.more = more
        self.stamps += runs
        self.items += entries
        self.appended = appended
        self.fed = fed
        self.answered = answered
        return True

    def _ask_anew(self, answer: int) -> None:
        """Give the next ask a new number if a read still waits for this void answer."""
        if answer == self.asked > self.answered:
            self.asked += 1

    def ask(self) -> int:
        """The number of the pending ask; without one, of a new ask, which begins here."""
        if self.asks():
            return self.asked
        self.asked = self.answered + 1
        return self.asked

    def asks(self) -> bool:
        """Whether an ask is pending: neither answered nor given up."""
        return self.asked > self.answered

    def give_up_asks(self) -> int:
        """Stop waiting for answers. Returns the number of the last ask, for the worker to hear."""
        self.answered = max(self.answered, self.asked)
        return self.answered

    def want_envelopes(self) -> None:
        """Take messages as `Stamped` from now on; idempotent.

        The unread entries came without envelopes, so a new epoch makes them void. The next READ
        tells the worker the new epoch, and the worker sends the entries again, with envelopes.
        """
        if not self.envelopes:
            self._void(self.epoch + 1)
            self.envelopes = True

    def _stamped(self, entry: str | bytes, keep: bool, number: int) -> Stamped:
        """The leftmost message with its stamp. `number`: the value of `consumed` after the take."""
        place = self.appended - len(self.items)
        stamps = self.stamps
        # Forget the runs that lie wholly before the leftmost entry.
        while stamps and stamps[0][0] + stamps[0][1][0] <= place:
            stamps.popleft()
        # A message of a crashed worker (`number` <= 0) gets no ticket: no worker can acknowledge
        # it.
        ticket = next(self.tickets) if keep and number > 0 else None
        return Stamped(entry, stamps[0][1] if stamps and stamps[0][0] <= place else None, ticket)

    def tell_kept(self) -> list[tuple[int, int]]:
        """The (`consumed`, ticket) pairs that the worker has to hear before the new value of
        `consumed`.

        The worker acknowledges every consumed message without a ticket. The pairs count as told
        from now on.
        """
        untold, self.untold = self.untold, {}
        return [(consumed, ticket) for ticket, consumed in untold.items()]

    def all_kept(self) -> list[tuple[int, int]]:
        """The pairs of `tell_kept` for every unsettled message, for a worker that may know no
        pair."""
        self.untold = {}
        return [(consumed, ticket) for ticket, consumed in self.unsettled.items()]

    def consumed_at_end(self) -> int:
        """The value of `consumed` for the worker when this holder leaves.

        The value stops before the first unacknowledged message. The worker may not have heard of
        the message's ticket, and would acknowledge the message as read.
        """
        return max(0, min([self.consumed, *(number - 1 for number in self.unsettled.values())]))

    def take(self, hand: Hand | None = None, *, keep: bool = False) -> Taken:
        """Take the oldest message, or the loss of the link that lies before the next message.

        `hand` receives the taken entry, so that `put_back` can undo the take. `keep`: the program
        acknowledges the message later, by its ticket. Returns the message, `LOST` or `EMPTY`.
        """
        hand = hand or Hand()
        if self.again:
            return self._take_again(hand)
        items = self.items
        while items:
            entry = items[0]
            if not isinstance(entry, int):
                return self._take_message(items, hand, keep)
            if self._take_mark(items, hand):
                return LOST
        return LOST if self.ended or (self.down and self.stream) else EMPTY

    def _take_message(self, items: deque[str | bytes | int], hand: Hand, keep: bool) -> Taken:
        """Take the leftmost entry, a message.

        `items` is the caller's `self.items`. A signal handler in the middle of this method may call
        `close`, and `close` replaces `self.items`. This method goes on with the old deque.
        """
        entry = items[0]
        assert not isinstance(entry, int)
        number = self.consumed + 1
        stamped = self._stamped(entry, keep, number) if self.envelopes else None
        ticket = None if stamped is None else stamped.ticket
        # ALL OR NOTHING
        self.consumed = number
        if ticket is not None:
            self.unsettled[ticket] = self.untold[ticket] = number
        hand.entry = entry
        hand.number = number
        hand.ticket = ticket
        hand.whole = entry if stamped is None else stamped
        del items[0]
        return entry if stamped is None else stamped

    def _take_mark(self, items: deque[str | bytes | int], hand: Hand) -> bool:
        """Take the leftmost entry, a mark, and note the state of the link.

        Returns True for a loss or an end of the link, False when the link came up.
        """
        entry = items[0]
        assert isinstance(entry, int)
        number, up, end = self.consumed + 1, entry == Mark.UP, entry == Mark.END
        loss = entry if isinstance(entry, Loss) else None
        # ALL OR NOTHING
        self.consumed = number
        if number > 0:
            self.marks += 1
        self.down = not up
        self.loss = loss
        if end:
            self.ended = True
        if not up:
            hand.entry = entry
            hand.number = number
            hand.whole = LOST
        del items[0]
        return not up

    def _take_again(self, hand: Hand) -> Taken:
        """Take the oldest entry of `again`, in the form that reads want now."""
        whole, rest = self.again[0], self.again[1:]
        if isinstance(whole, Stamped) and not self.envelopes:
            given: Taken = whole.data
        elif isinstance(whole, (str, bytes)) and self.envelopes:
            given = Stamped(whole, None)
        else:
            given = whole
        # ALL OR NOTHING
        hand.entry = 0
        hand.number = NOT_FRESH
        hand.whole = whole
        self.again = rest
        return given

    def put_back(self, hand: Hand) -> None:
        """Return the entry of the hand to the pocket: the next `take` gives the entry again."""
        entry, number, whole = hand.entry, hand.number, hand.whole
        if entry is None or whole is None:
            return
        if number == self.consumed and self.acked < number and not self.again:
            # The entry was the last one consumed, and the worker does not know yet: undo the take.
            items = deque((entry, *self.items))
            is_mark = isinstance(entry, int) and number > 0
            unsettled = {t: n for t, n in self.unsettled.items() if t != hand.ticket}
            untold = {t: n for t, n in self.untold.items() if t != hand.ticket}
            # ALL OR NOTHING
            self.consumed = number - 1
            if is_mark:
                self.marks -= 1
            self.unsettled = unsettled
            self.untold = untold
            self.items = items
            hand.entry = None
            return
        # The worker was told that the entry is consumed, or another thread has taken the entry
        # after.
        again = (whole, *self.again) if number == NOT_FRESH else (*self.again, whole)
        # ALL OR NOTHING
        self.again = again
        hand.entry = None

    def take_newest(self, hand: Hand | None = None, *, keep: bool = False) -> Taken:
        """Take the newest message and discard the older ones. Marks behind the message stay.

        Arguments and results are those of `take`.
        """
        hand = hand or Hand()
        items = self.items
        index = len(items)
        # Behind this loop, `index` entries are left up to the newest message.
        while index and isinstance(items[index - 1], int):
            index -= 1
        if not index:
            # No message in `items`: the newest message is the last of the messages put back.
            self._skip_again(1)
            return self.take(hand, keep=keep)
        self._skip_again(0)
        while index > 1:
            index -= 1
            entry = items[0]
            if isinstance(entry, int):
                self._take_mark(items, hand)
                hand.entry = None
                continue
            # ALL OR NOTHING
            if self.consumed >= 0:  # the present worker does not count a crashed worker's messages
                self.skipped += 1
            self.consumed += 1
            del items[0]
        newest = items[0]
        assert not isinstance(newest, int)
        taken = self._take_message(items, hand, keep)
        self.down = self.ended
        return taken

    def _skip_again(self, keep: int) -> None:
        """Discard the entries put back, but for the last `keep`, and count them skipped."""
        rest = self.again[len(self.again) - keep :] if keep else ()
        skipped = sum(whole is not LOST for whole in self.again) - sum(
            whole is not LOST for whole in rest
        )
        # ALL OR NOTHING
        self.again = rest
        self.skipped += skipped

    def recall(self, epoch: int, *, elsewhere: bool = False) -> int:
        """Give all unread entries back to the worker: they are void from now on.

        `epoch`: the epoch begun by the recall. Nothing changes when the pocket is in this epoch
        already.
        `elsewhere`: the recall comes from a seek, so entries of a former worker are discarded, too.
        Returns `consumed`, which tells the worker the first entry given back.
        """
        if epoch > self.epoch:
            self._void(epoch)
            self.acked = self.consumed
        if elsewhere:
            self.forget_former()
        return self.consumed

    def fresh(self) -> Unread:
        """The entries of a recall at this moment: all unread entries but those of a crashed
        worker."""
        old = min(len(self.items), max(0, -self.consumed))  # entries of a crashed worker
        first = self.appended - len(self.items) + old
        return Unread(
            list(itertools.islice(self.items, old, None)),
            [(number - first, stamp) for number, stamp in self.stamps if number + stamp[0] > first],
        )

    def take_in_again(self, unread: Unread) -> None:
        """Add recalled entries again: the worker died and cannot send the entries again."""
        items = deque((*self.items, *unread.entries))
        stamps = deque(
            (*self.stamps, *((self.appended + number, stamp) for number, stamp in unread.stamps))
        )
        appended, fed = self.appended + len(unread.entries), self.fed + len(unread.entries)
        # ALL OR NOTHING
        self.items = items
        self.stamps = stamps
        self.appended = appended
        self.fed = fed

    def forget_former(self) -> None:
        """Discard the messages out of the present worker's reach. Marks stay.

        The present worker cannot recall entries put back although they count as consumed, nor the
        messages of a crashed worker.
        """
        old = min(len(self.items), max(0, -self.consumed))
        rest = itertools.islice(self.items, old, None)
        marks = [entry for entry in itertools.islice(self.items, old) if isinstance(entry, int)]
        items = deque((*marks, *rest))
        consumed = -len(marks) if old else self.consumed
        # ALL OR NOTHING
        self.again = ()
        if old:
            self.items = items
            self.consumed = self.acked = consumed

    def _void(self, epoch: int) -> None:
        """Begin an epoch: drop the entries of the present worker, for the worker sends them
        again."""
        count = max(0, len(self.items) + min(0, self.consumed))
        # The entries of a crashed worker stay: no other process has them.
        items = deque(itertools.islice(self.items, len(self.items) - count))
        fed, appended = self.fed - count, self.appended - count
        stamps = deque(stamp for stamp in self.stamps if stamp[0] < appended)
        # ALL OR NOTHING
        self.epoch = epoch
        self.fed = fed
        self.items = items
        self.appended = appended
        self.stamps = stamps
        self.stream = False

    def discard(self) -> None:
        """Drop all entries without consuming them, and make void the entries on their way.

        Called before the worker is asked for its newest message. The worker then takes its entries
        back, and counts the older messages as skipped itself.
        """
        marks = [entry for entry in self.items if isinstance(entry, int)]
        # The dropped marks still tell the state of the link, as if they had been read.
        down, ended = self.down, self.ended
        if marks:
            down, ended = marks[-1] != Mark.UP, ended or int(Mark.END) in marks
        loss = marks[-1] if marks and isinstance(marks[-1], Loss) else None if marks else self.loss
        old = min(len(self.items), max(0, -self.consumed))
        fed = self.fed - (len(self.items) - old)
        items: deque[str | bytes | int] = deque()
        # ALL OR NOTHING
        self.down, self.ended, self.loss = down, ended, loss
        self.consumed += old
        self.fed = fed
        self.items = items
        self.epoch += 1
        self.stream = False

    def has_newest(self) -> bool:
        """Whether `take_newest` needs no answer of the worker.

        True when the worker streams and has nothing newer, or when the worker is gone.
        """
        return not self.more and (self.stream or (self.consumed < 0 and bool(self.items)))

    def will_be_down(self) -> bool:
        """Whether the link will seem down to this holder after the last unread entry."""
        marks = [entry for entry in self.items if isinstance(entry, int)]
        return marks[-1] != Mark.UP if marks else self.down

    def clear(self) -> None:
        """Drop all entries, and let every later read find the link ended: the object was closed."""
        self.again = ()
        self.lose(Mark.END, keeps_entries=False)

    def lose(self, mark: Mark, *, comes_again: bool = False, keeps_entries: bool = True) -> None:
        """Note that the worker is gone: append `mark` behind the worker's entries.

        `mark`: `Mark.DOWN` when another worker takes over, else `Mark.END`.
        `comes_again`: a message broker delivers unacknowledged messages again, so the unread
        entries are dropped; otherwise the program would read them twice.
        `keeps_entries`: the program may still read the entries that are here.
        """
        if comes_again:
            self._void(self.epoch)
        unread = tuple(self.items) if keeps_entries else ()
        # `had` counts the messages of the lost worker, read or not; marks are no messages.
        fresh = unread[max(0, -self.consumed) :]
        had = self.had + self.fed - self.marks - sum(isinstance(entry, int) for entry in fresh)
        answered = max(self.answered, self.asked)
        items = deque((*unread, int(mark)))
        consumed, unknown = -len(items), self.skipped - self.skipped_told
        # ALL OR NOTHING
        self.had = had
        self.answered = answered
        self.fed = self.marks = 0
        self.skipped = unknown
        self.skipped_told = 0
        self.unsettled = {}  # the next worker does not know these tickets
        self.untold = {}
        self.items = items
        self.appended += 1
        self.more = False
        self.stream = False
        self.consumed = consumed  # reaches zero where the entries of the next worker begin
        self.acked = consumed
        self.epoch = 0

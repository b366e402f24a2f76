"""The proxy's side of reading: what the worker has sent ahead, and the reading rules of SPEC 3.

Pure: no socket, no clock, no lock (the membership of the object holds one). `take` gives the oldest entry,
`take_newest` the newest; each answers with a message, with `LOST` (the link is down or was lost here, in its
place in the order) or with `EMPTY`.

A signal handler may raise (Ctrl-C), which stops a method here between two steps. CPython calls handlers where
a function is called and where a loop turns, nowhere else. So each method first computes, and then changes the
pocket in a row of assignments, marked ALL OR NOTHING, that calls nothing: an exception finds all of it done
or none. What is taken is in a `Hand` from that moment on, and `put_back` undoes it.
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
"""In place of the number of what was put back and taken again."""
_TICKET_BITS = 52
"""Tickets stay below the largest count that the wire allows (`trunkline.wire.messages.check`)."""


class _Nothing(Enum):
    LOST = "lost"
    EMPTY = "empty"


LOST: Final = _Nothing.LOST
EMPTY: Final = _Nothing.EMPTY


class Stamped(NamedTuple):
    """A message and what is known of it, as the worker packed it: count, time, then the envelope's fields.
    None for what came from a worker that is gone."""

    data: str | bytes
    stamp: Sequence[Any] | None
    ticket: int | None = None
    """By what the message is acknowledged later, where it was taken with `keep`."""


Taken = str | bytes | Stamped | _Nothing


class Hand:
    """What one call has taken out of a pocket, until it is returned."""

    __slots__ = ("entry", "number", "ticket", "whole")

    def __init__(self) -> None:
        self.entry: str | bytes | int | None = None
        self.number: int = 0
        """The value of `consumed` that includes it."""
        self.ticket: int | None = None
        self.whole: Taken | None = None
        """As it was given."""


class Unread(NamedTuple):
    """Entries that a recall gives back to the worker, with their stamps: the number of the first entry of a
    run, counted from the first of these entries, and the run's stamp."""

    entries: Sequence[str | bytes | int]
    stamps: Sequence[tuple[int, Sequence[Any]]]


class Pocket:
    """Entries sent ahead of being asked for, and what is known of the link."""

    __slots__ = (
        "acked", "again", "answered", "appended", "asked", "consumed", "down", "ended",
        "envelopes", "epoch", "fed", "gap", "had", "items", "loss", "marks", "more",
        "skipped", "skipped_told", "stamps", "stream", "tickets", "unsettled", "untold",
    )  # fmt: skip

    def __init__(self) -> None:
        self.items: deque[str | bytes | int] = deque()
        self.epoch: int = 0
        self.consumed: int = 0
        """Entries consumed in total since this object attached; below zero while entries of a
        crashed worker are still to be read."""
        self.acked: int = 0
        """What the worker was last told of `consumed`."""
        self.stream: bool = False
        """Entries come unasked, as the worker has said. Otherwise each read has to ask."""
        self.more: bool = False
        """When the last entries were sent, the worker had more than it was allowed to send."""
        self.down: bool = False
        self.ended: bool = False
        self.loss: Loss | None = None
        """Why the link was lost that the last entries told of; None where that is not known."""
        self.gap: bool = False
        """Something was lost on the way here (with a broker that died): it must be sent again."""
        self.skipped: int = 0
        """Of those consumed, messages that were discarded by `take_newest`, in total: what is told again
        after a saying that was broken off counts once."""
        self.skipped_told: int = 0
        """What the worker was last told of `skipped`."""
        self.fed: int = 0
        """Entries taken in from this worker and not given back."""
        self.marks: int = 0
        """Of those consumed, marks."""
        self.had: int = 0
        """Messages that came here from workers that are gone: what a dead worker cannot know."""
        self.envelopes: bool = False
        """What is taken is `Stamped`, as the worker was asked to say what it knows of each message."""
        self.appended: int = 0
        """Entries that ever came to the right end of `items`: gives each its number."""
        self.stamps: deque[tuple[int, Sequence[Any]]] = deque()
        """The number of the first entry of a run, and the run's stamp."""
        first = int.from_bytes(os.urandom(8)) >> (64 - _TICKET_BITS)
        self.tickets: Iterator[int] = itertools.count(first)
        """No two pockets of a connection begin at the same number."""
        self.unsettled: dict[int, int] = {}
        """Tickets of the messages that were taken with `keep` and not acknowledged yet, each with the value
        of `consumed` that includes the message."""
        self.untold: dict[int, int] = {}
        """The same of those that the worker has not been told of."""
        self.asked: int = 0
        """The number of the last ask."""
        self.answered: int = 0
        """Asks up to this number were answered, or are given up."""
        self.again: tuple[Taken, ...] = ()
        """What was put back although it counts as consumed, the oldest first: it is taken before `items`."""

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
        """Entries arrived, `first` having been sent before them, as the answer to the ask of this number (0:
        to none); False when they are void: they belong to an epoch that was recalled, or others before them
        were lost on the way (then `gap` is set). Who waits for a void answer has to ask anew."""
        if epoch < self.epoch:
            self._ask_anew(answer)
            return False
        if epoch > self.epoch:  # faster than the recall itself, which comes another way
            self._void(epoch)
        if first is not None and first != self.consumed + len(self.items):
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
        """The answer to this ask was void: where it is waited for, the next one has another number."""
        if answer == self.asked > self.answered:
            self.asked += 1

    def ask(self) -> int:
        """The number of the ask that is out, else of the next one."""
        if self.asks():
            return self.asked
        self.asked = self.answered + 1
        return self.asked

    def asks(self) -> bool:
        """Whether an ask is out that was neither answered nor given up."""
        return self.asked > self.answered

    def give_up_asks(self) -> int:
        """Nobody waits for an answer any more. Returns the number of the last ask: the worker has to hear
        it."""
        self.answered = max(self.answered, self.asked)
        return self.answered

    def want_envelopes(self) -> None:
        """From now on what is taken is `Stamped`. What is here came without: the worker shall send it again,
        as it does for whoever asks in an epoch that he has begun himself."""
        if not self.envelopes:
            self._void(self.epoch + 1)
            self.envelopes = True

    def _stamped(self, entry: str | bytes, keep: bool, number: int) -> Stamped:
        """The message at the left with what is known of it. `number`: of `consumed` when it is taken."""
        place = self.appended - len(self.items)
        stamps = self.stamps
        while stamps and stamps[0][0] + stamps[0][1][0] <= place:
            stamps.popleft()
        ticket = next(self.tickets) if keep and number > 0 else None
        return Stamped(entry, stamps[0][1] if stamps and stamps[0][0] <= place else None, ticket)

    def tell_kept(self) -> list[tuple[int, int]]:
        """The messages that are acknowledged later: the worker has to hear of them before `consumed`."""
        untold, self.untold = self.untold, {}
        return [(consumed, ticket) for ticket, consumed in untold.items()]

    def all_kept(self) -> list[tuple[int, int]]:
        """Every message that is to be acknowledged later, for a worker that may have heard of none."""
        self.untold = {}
        return [(consumed, ticket) for ticket, consumed in self.unsettled.items()]

    def consumed_at_end(self) -> int:
        """What the worker is told of `consumed` when this holder goes: not more than what lies before the
        first message without its acknowledgement, for the worker may not have heard that it is kept."""
        return max(0, min([self.consumed, *(number - 1 for number in self.unsettled.values())]))

    def take(self, hand: Hand | None = None, *, keep: bool = False) -> Taken:
        """The oldest entry, which is in the `hand` then. `keep`: the program acknowledges the message later,
        by its ticket."""
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
        """`items`: those of now. A signal handler that closes the object puts others in their place."""
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
        """Note what happened to the link; True when it is a loss."""
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
        """What this hand holds was not returned after all: the next `take` gives it again."""
        entry, number, whole = hand.entry, hand.number, hand.whole
        if entry is None or whole is None:
            return
        if number == self.consumed and self.acked < number and not self.again:
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
        # The worker was told that it is consumed, or another thread has taken what came after it.
        again = (whole, *self.again) if number == NOT_FRESH else (*self.again, whole)
        # ALL OR NOTHING
        self.again = again
        hand.entry = None

    def take_newest(self, hand: Hand | None = None, *, keep: bool = False) -> Taken:
        """The newest message; what is older is discarded, what happened to the link after it stays."""
        hand = hand or Hand()
        items = self.items
        index = len(items)
        while index and isinstance(items[index - 1], int):
            index -= 1
        if not index:
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
            if self.consumed >= 0:  # those of a crashed worker are nobody's to count
                self.skipped += 1
            self.consumed += 1
            del items[0]
        newest = items[0]
        assert not isinstance(newest, int)
        taken = self._take_message(items, hand, keep)
        self.down = self.ended
        return taken

    def _skip_again(self, keep: int) -> None:
        """Discard what was put back, but for the last `keep`."""
        rest = self.again[len(self.again) - keep :] if keep else ()
        skipped = sum(whole is not LOST for whole in self.again) - sum(
            whole is not LOST for whole in rest
        )
        # ALL OR NOTHING
        self.again = rest
        self.skipped += skipped

    def recall(self, epoch: int, *, elsewhere: bool = False) -> int:
        """Give everything back: what is here is void from now on. Returns what was consumed in total.
        `elsewhere`: the connection was told to go on somewhere else (`Connection.seek`)."""
        if epoch > self.epoch:
            self._void(epoch)
            self.acked = self.consumed
        if elsewhere:
            self.forget_former()
        return self.consumed

    def fresh(self) -> Unread:
        """What a recall would give back now."""
        old = min(len(self.items), max(0, -self.consumed))
        first = self.appended - len(self.items) + old
        return Unread(
            list(itertools.islice(self.items, old, None)),
            [(number - first, stamp) for number, stamp in self.stamps if number + stamp[0] > first],
        )

    def take_in_again(self, unread: Unread) -> None:
        """What was given back is ours after all: the worker that it was given back to is gone."""
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
        """Discard what is here and is the worker's no more: what was put back although it counts as consumed,
        and the messages of a worker that crashed. What happened to the link stays."""
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
        count = max(0, len(self.items) + min(0, self.consumed))
        # but not what a crashed worker sent: nobody else has it
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
        """Throw away what is here without consuming it, and what is on its way (before asking the worker for
        the newest: it takes all of it back)."""
        marks = [entry for entry in self.items if isinstance(entry, int)]
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
        """Whether `take_newest` can be answered from here: the worker has nothing newer, or is gone."""
        return not self.more and (self.stream or (self.consumed < 0 and bool(self.items)))

    def will_be_down(self) -> bool:
        """What this holder takes the link to be when it has read what is here."""
        marks = [entry for entry in self.items if isinstance(entry, int)]
        return marks[-1] != Mark.UP if marks else self.down

    def clear(self) -> None:
        """Nothing is to be read any more: the object was closed."""
        items: deque[str | bytes | int] = deque()
        # ALL OR NOTHING
        self.items = items
        self.again = ()
        self.lose(Mark.END)

    def lose(self, mark: Mark, *, comes_again: bool = False) -> None:
        """The worker is gone: what it sent is still read first, then this. But where a message broker keeps
        what nobody has acknowledged, it `comes_again`, and would be read twice."""
        if comes_again:
            self._void(self.epoch)
        fresh = list(self.items)[max(0, -self.consumed) :]
        had = self.had + self.fed - self.marks - sum(isinstance(entry, int) for entry in fresh)
        answered = max(self.answered, self.asked)
        items = deque((*self.items, int(mark)))
        consumed, unknown = -len(items), self.skipped - self.skipped_told
        # ALL OR NOTHING
        self.had = had
        self.answered = answered
        self.fed = self.marks = 0
        self.skipped = unknown
        self.skipped_told = 0
        self.unsettled = {}  # the worker that knew them is gone
        self.untold = {}
        self.items = items
        self.appended += 1
        self.more = False
        self.stream = False
        self.consumed = consumed  # a worker that takes over counts from zero
        self.acked = consumed
        self.epoch = 0

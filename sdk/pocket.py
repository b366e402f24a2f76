"""The proxy's side of reading: what the worker has sent ahead, and the reading rules of SPEC 3.

Pure: no socket, no clock, no lock (the Connection holds one). `take` gives the oldest entry, `take_newest`
the newest; each answers with a message, with `LOST` (the link is down or was lost here, in its place in
the order) or with `EMPTY`.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final, NamedTuple

from trunkline.wire.envelope import Mark
from trunkline.wire.loss import Loss

__all__ = ["EMPTY", "LOST", "Pocket", "Stamped", "Taken"]


_TICKET_BITS = 52
"""Tickets stay below the largest count that the wire allows (`wire.envelope.check_fields`)."""


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


class Pocket:
    """Entries sent ahead of being asked for, and what is known of the link."""

    __slots__ = (
        "acked", "appended", "consumed", "down", "ended", "envelopes", "epoch", "fed", "gap", "had", "items",
        "loss", "marks", "more", "skipped", "stamps", "stream", "tickets", "unsettled", "untold",
    )  # fmt: skip

    def __init__(self) -> None:
        self.items: deque[str | bytes | int] = deque()
        self.epoch = 0
        self.consumed = 0
        """Entries consumed in total since this object attached; below zero while entries of a
        crashed worker are still to be read."""
        self.acked = 0
        """What the worker was last told of `consumed`."""
        self.stream = False
        """Entries come unasked, as the worker has said. Otherwise each read has to ask."""
        self.more = False
        """When the last entries were sent, the worker had more than it was allowed to send."""
        self.down = False
        self.ended = False
        self.loss: Loss | None = None
        """Why the link was lost that the last entries told of; None where that is not known."""
        self.gap = False
        """Something was lost on the way here (with a broker that died): it must be sent again."""
        self.skipped = 0
        """Of those consumed, messages that were discarded by `take_newest` (not yet told to the worker)."""
        self.fed = 0
        """Entries taken in from this worker and not given back."""
        self.marks = 0
        """Of those consumed, marks."""
        self.had = 0
        """Messages that came here from workers that are gone: what a dead worker cannot know."""
        self.envelopes = False
        """What is taken is `Stamped`, as the worker was asked to say what it knows of each message."""
        self.appended = 0
        """Entries that ever came to the right end of `items`: gives each its number."""
        self.stamps: deque[tuple[int, Sequence[Any]]] = deque()
        """The number of the first entry of a run, and the run's stamp."""
        self.tickets = itertools.count(int.from_bytes(os.urandom(8)) >> (64 - _TICKET_BITS))
        """No two pockets of a connection begin at the same number."""
        self.unsettled: dict[int, int] = {}
        """Tickets of the messages that were taken with `keep` and not acknowledged yet, each with the value
        of `consumed` that includes the message."""
        self.untold: list[tuple[int, int]] = []
        """The same as (consumed, ticket), of those that the worker has not been told of."""

    def feed(
        self,
        epoch: int,
        stream: bool,
        more: bool,
        entries: Sequence[str | bytes | int],
        first: int | None = None,
        stamps: Sequence[Sequence[Any]] = (),
    ) -> bool:
        """Entries arrived, `first` having been sent before them; False when they are void: they belong to an
        epoch that was recalled, or others before them were lost on the way (then `gap` is set)."""
        if epoch < self.epoch:
            return False
        if epoch > self.epoch:  # faster than the recall itself, which comes another way
            self._void(epoch)
        if entries and first is not None and first != self.consumed + len(self.items):
            self.gap = True
            return False
        self.stream = stream
        self.more = more
        number = self.appended
        for stamp in stamps:
            self.stamps.append((number, stamp))
            number += stamp[0]
        self.items.extend(entries)
        self.appended += len(entries)
        self.fed += len(entries)
        return True

    def want_envelopes(self) -> None:
        """From now on what is taken is `Stamped`. What is here came without: the worker shall send it again,
        as it does for whoever asks in an epoch that he has begun himself."""
        if not self.envelopes:
            self.envelopes = True
            self._void(self.epoch + 1)

    def _stamped(self, entry: str | bytes, keep: bool) -> Taken:
        """The message that has just been taken from the left, as this holder wants it."""
        if not self.envelopes:
            return entry
        number = self.appended - len(self.items) - 1
        stamps = self.stamps
        while stamps and stamps[0][0] + stamps[0][1][0] <= number:
            stamps.popleft()
        ticket = self._keep() if keep and self.consumed > 0 else None
        return Stamped(entry, stamps[0][1] if stamps and stamps[0][0] <= number else None, ticket)

    def _keep(self) -> int:
        """The ticket of the message that was consumed last."""
        ticket = next(self.tickets)
        self.unsettled[ticket] = self.consumed
        self.untold.append((self.consumed, ticket))
        return ticket

    def tell_kept(self) -> list[tuple[int, int]]:
        """The messages that are acknowledged later: the worker has to hear of them before `consumed`."""
        untold, self.untold = self.untold, []
        return untold

    def all_kept(self) -> list[tuple[int, int]]:
        """Every message that is to be acknowledged later, for a worker that may have heard of none."""
        self.untold = []
        return [(consumed, ticket) for ticket, consumed in self.unsettled.items()]

    def consumed_at_end(self) -> int:
        """What the worker is told of `consumed` when this holder goes: not more than what lies before the
        first message without its acknowledgement, for the worker may not have heard that it is kept."""
        return max(0, min([self.consumed, *(number - 1 for number in self.unsettled.values())]))

    def take(self, *, keep: bool = False) -> Taken:
        """The oldest entry. `keep`: the program acknowledges the message later, by its ticket."""
        items = self.items
        while items:
            entry = items.popleft()
            self.consumed += 1
            if not isinstance(entry, int):
                return self._stamped(entry, keep)
            self.marks += self.consumed > 0
            if self._see(entry):
                return LOST
        return LOST if self.ended or (self.down and self.stream) else EMPTY

    def take_newest(self, *, keep: bool = False) -> Taken:
        """The newest message; what is older is discarded, what happened to the link after it stays."""
        items = self.items
        index = len(items)
        while index and isinstance(items[index - 1], int):
            index -= 1
        if not index:
            return self.take(keep=keep)
        for _ in range(index - 1):
            entry = items.popleft()
            if isinstance(entry, int):
                self._see(entry)
                self.marks += self.consumed >= 0
            elif self.consumed >= 0:  # those of a crashed worker are nobody's to count
                self.skipped += 1
            self.consumed += 1
        newest = items.popleft()
        self.consumed += 1
        self.down = self.ended
        return self._stamped(newest, keep) if not isinstance(newest, int) else EMPTY

    def recall(self, epoch: int) -> int:
        """Give everything back: what is here is void from now on. Returns what was consumed in total."""
        if epoch > self.epoch:
            self._void(epoch)
            self.acked = self.consumed
        return self.consumed

    def _void(self, epoch: int) -> None:
        self.epoch = epoch
        count = len(self.items) + min(0, self.consumed)
        self.fed -= max(0, count)
        for _ in range(count):
            self.items.pop()  # but not what a crashed worker sent: nobody else has it
        self.appended -= max(0, count)
        while self.stamps and self.stamps[-1][0] >= self.appended:
            self.stamps.pop()
        self.stream = False

    def discard(self) -> None:
        """Throw away what is here without consuming it, and what is on its way (before asking the worker for
        the newest: it takes all of it back)."""
        for entry in self.items:
            if isinstance(entry, int):
                self._see(entry)
        old = min(len(self.items), max(0, -self.consumed))
        self.consumed += old
        self.fed -= len(self.items) - old
        self.items.clear()
        self.epoch += 1
        self.stream = False

    def has_newest(self) -> bool:
        """Whether `take_newest` can be answered from here: the worker has nothing newer, or is gone."""
        return not self.more and (self.stream or (self.consumed < 0 and bool(self.items)))

    def will_be_down(self) -> bool:
        """What this holder takes the link to be when it has read what is here."""
        marks = [entry for entry in self.items if isinstance(entry, int)]
        return marks[-1] != Mark.UP if marks else self.down

    def lose(self, mark: Mark, *, comes_again: bool = False) -> None:
        """The worker is gone: what it sent is still read first, then this. But where a message broker keeps
        what nobody has acknowledged, it `comes_again`, and would be read twice."""
        if comes_again:
            self._void(self.epoch)
        fresh = list(self.items)[max(0, -self.consumed) :]
        self.had += self.fed - self.marks - sum(isinstance(entry, int) for entry in fresh)
        self.fed = self.marks = 0
        self.unsettled.clear()  # the worker that knew them is gone
        self.untold.clear()
        self.items.append(int(mark))
        self.appended += 1
        self.more = False
        self.stream = False
        self.consumed = -len(self.items)  # a worker that takes over counts from zero
        self.acked = self.consumed
        self.epoch = 0

    def _see(self, mark: int) -> bool:
        """Note what happened to the link; True when it is a loss."""
        if mark == Mark.UP:
            self.down = False
            self.loss = None
            return False
        self.down = True
        self.loss = mark if isinstance(mark, Loss) else None
        self.ended = self.ended or mark == Mark.END
        return True

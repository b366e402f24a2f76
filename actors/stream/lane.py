"""Entries in their order, and beside them, run by run, what is known of them: the lanes of a `Buffer`.

A run stands for some entries that follow each other: for what came in one batch, so that nobody pays per
message for what is known of all of them. With their envelopes the run has the batch itself. Where a message
must be known alone, because it may come again, `singles` takes the runs apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trunkline.actors.driver import Delivery

__all__ = ["Entry", "Lane", "Run"]

Entry = str | bytes | int
"""A message, or (int) a `Mark`."""


class Run:
    """What is known of `count` entries that follow each other."""

    __slots__ = ("at", "batch", "count", "done", "first", "link", "tokens", "void")

    def __init__(self, count: int = 1, at: int = 0) -> None:
        self.count = count
        self.at = at
        """When they came: wall clock, nanoseconds."""
        self.batch: Sequence[Delivery] | None = None
        """The messages with their envelopes, where they came with any: from number `first` on."""
        self.first = 0
        self.tokens: list[Any] | None = None
        """By the same numbers, what the link wants back when a reader has the message."""
        self.link: Any = None
        """Whose tokens these are."""
        self.done = False
        """A reader has them."""
        self.void = False
        """Of a single message: nobody is to be given it any more."""

    def split(self, count: int) -> Run:
        """The first `count` of them as a run of their own."""
        part = self._part(count, self.first)
        self.first += count
        self.count -= count
        return part

    def split_last(self) -> Run:
        """The last of them as a run of its own."""
        self.count -= 1
        return self._part(1, self.first + self.count)

    def _part(self, count: int, first: int) -> Run:
        part = Run(count, self.at)
        part.batch, part.first, part.tokens, part.link = self.batch, first, self.tokens, self.link
        return part

    def deliveries(self) -> Sequence[Delivery]:
        """The messages with their envelopes; nothing where they came without."""
        return () if self.batch is None else self.batch[self.first : self.first + self.count]

    def owing(self) -> list[Any]:
        """The tokens of these messages; None among them where nobody waits for one."""
        return [] if self.tokens is None else self.tokens[self.first : self.first + self.count]

    def show_redelivered(self) -> None:
        """Of a single message: the reader that gets it now is not the first."""
        self.batch = [each._replace(redelivered=True) for each in self.deliveries()] or None
        if self.tokens is not None:
            self.tokens = self.owing()
        self.first = 0

    def take_over(self, link: Any, token: Any) -> None:
        """Of a single message: it has come again over this link, with this token."""
        self.batch, self.first, self.tokens, self.link = self.deliveries(), 0, [token], link


class Lane:
    """See the module. The counts of `runs` add up to the number of `entries`."""

    __slots__ = ("entries", "runs")

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self.runs: deque[Run] = deque()

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __getitem__(self, index: int) -> Entry:
        return self.entries[index]

    def extend(self, entries: Sequence[Entry], run: Run) -> None:
        """Entries that make up one run."""
        self.entries.extend(entries)
        self.runs.append(run)

    def join(self, entries: Sequence[Entry], runs: Sequence[Run]) -> None:
        """What another lane gave."""
        self.entries.extend(entries)
        self.runs.extend(runs)

    def append(self, entry: Entry) -> None:
        self.extend((entry,), Run())

    def appendleft(self, entry: Entry) -> None:
        self.entries.appendleft(entry)
        self.runs.appendleft(Run())

    def put_back(self, entries: Sequence[Entry], runs: Sequence[Run]) -> None:
        """To the front, in their order."""
        self.entries.extendleft(reversed(entries))
        self.runs.extendleft(reversed(runs))

    def take(self, count: int) -> tuple[list[Entry], list[Run]]:
        """The first `count` entries with their runs; the last of these may be a part of one."""
        if count >= len(self.entries):
            return self.drain()
        popleft = self.entries.popleft
        entries = [popleft() for _ in range(count)]
        runs: list[Run] = []
        while count:
            run = self.runs[0]
            if run.count > count:
                runs.append(run.split(count))
                break
            count -= run.count
            runs.append(self.runs.popleft())
        return entries, runs

    def drain(self) -> tuple[list[Entry], list[Run]]:
        """Everything."""
        whole = list(self.entries), list(self.runs)
        self.clear()
        return whole

    def popleft(self) -> Entry:
        """The first entry, when nobody asks for its run."""
        run = self.runs[0]
        run.count -= 1
        run.first += 1
        if not run.count:
            self.runs.popleft()
        return self.entries.popleft()

    def pop(self) -> tuple[Entry, Run]:
        """The last entry and its run."""
        entry, run = self.entries.pop(), self.runs[-1]
        return entry, run.split_last() if run.count > 1 else self.runs.pop()

    def singles(self) -> list[Run]:
        """Each message that somebody waits for gets a run of its own; all of these."""
        runs: deque[Run] = deque()
        found: list[Run] = []
        for run in self.runs:
            if run.tokens is None:
                runs.append(run)
                continue
            parts = [run.split(1) for _ in range(run.count - 1)]
            runs += [*parts, run]
            found += [*parts, run]
        self.runs = runs
        return found

    def throw_away(self, void: Callable[[Run], bool]) -> tuple[list[Entry], list[Run]]:
        """Take out the messages that somebody waits for and whose runs are void."""
        self.singles()
        out: tuple[list[Entry], list[Run]] = [], []
        entries, runs = self.drain()
        place = 0
        for run in runs:
            part = entries[place : place + run.count]
            place += run.count
            if run.tokens is not None and void(run):
                out[0].extend(part)
                out[1].append(run)
            else:
                self.extend(part, run)
        return out

    def remove(self, index: int) -> None:
        """Take out one entry that has no envelope."""
        del self.entries[index]
        for place, run in enumerate(self.runs):
            if index < run.count:
                run.count -= 1
                if not run.count:
                    del self.runs[place]
                return
            index -= run.count

    def clear(self) -> None:
        self.entries.clear()
        self.runs.clear()

"""Entries in their order, and beside them, run by run, what is known of them: the lanes of a `Buffer`.

A run stands for some entries that follow each other: for a whole batch where only the time of its arrival is
known, so that a plain stream pays nothing per message; for a single message where there is an envelope, or
somebody who waits to hear that it was read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from trunkline.actors.driver import Delivery

__all__ = ["Entry", "Lane", "Run"]

Entry = str | bytes | int
"""A message, or (int) a `Mark`."""


class Run:
    """What is known of `count` entries that follow each other."""

    __slots__ = ("at", "count", "delivery", "done", "link", "token")

    def __init__(self, count: int = 1, at: int = 0) -> None:
        self.count = count
        self.at = at
        """When they came: wall clock, nanoseconds."""
        self.delivery: Delivery | None = None
        """The envelope; of a single message only."""
        self.token: Any = None
        """What its link wants back when a reader has the message."""
        self.link: Any = None
        """Whose token that is."""
        self.done = False
        """A reader has it."""


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
                run.count -= count
                runs.append(Run(count, run.at))
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
        if not run.count:
            self.runs.popleft()
        return self.entries.popleft()

    def pop(self) -> tuple[Entry, Run]:
        """The last entry and its run."""
        entry, run = self.entries.pop(), self.runs[-1]
        if run.count > 1:
            run.count -= 1
            return entry, Run(1, run.at)
        return entry, self.runs.pop()

    def remove(self, index: int) -> None:
        """Take out one entry."""
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

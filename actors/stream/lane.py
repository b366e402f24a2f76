"""The lanes of a `Buffer`: entries in order, and the runs beside the entries.

A run describes some entries in a row: usually the messages of one batch, so that facts about the
whole batch are stored once and not for each message. For messages with envelopes the run refers to
the batch of deliveries. `Lane.singles` splits runs where each message needs a run of its own,
because the peer may send the message again.
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
    """The time of arrival, envelopes and tokens of `count` entries in a row."""

    __slots__ = ("at", "batch", "count", "done", "first", "link", "tokens", "void")

    def __init__(self, count: int = 1, at: int = 0) -> None:
        self.count = count
        self.at = at
        """When the entries came: wall clock, nanoseconds."""
        self.batch: Sequence[Delivery] | None = None
        """The batch with the envelopes of the messages; None for messages without envelopes.
        The run's messages begin at index `first` of the batch. Parts of a run share the batch."""
        self.first = 0
        self.tokens: list[Any] | None = None
        """Tokens by the same indexes as in `batch`; None where no message has a token."""
        self.link: Any = None
        """The link of the tokens."""
        self.done = False
        """A reader has the messages."""
        self.void = False
        """Of a run with one message: the message is from before a seek, for no reader any more."""

    def split(self, count: int) -> Run:
        """Split the first `count` entries off, and return the new run."""
        part = self._part(count, self.first)
        self.first += count
        self.count -= count
        return part

    def split_last(self) -> Run:
        """Split the last entry off, and return the new run."""
        self.count -= 1
        return self._part(1, self.first + self.count)

    def _part(self, count: int, first: int) -> Run:
        part = Run(count, self.at)
        part.batch, part.first, part.tokens, part.link = self.batch, first, self.tokens, self.link
        return part

    def deliveries(self) -> Sequence[Delivery]:
        """The messages with their envelopes; empty for messages without envelopes."""
        return () if self.batch is None else self.batch[self.first : self.first + self.count]

    def owing(self) -> list[Any]:
        """The tokens of the run's messages; None for a message without a token."""
        return [] if self.tokens is None else self.tokens[self.first : self.first + self.count]

    def show_redelivered(self) -> None:
        """Mark the run's only message as redelivered: another reader had the message before."""
        # Other runs share the batch, so the changed message needs a new batch.
        self.batch = [each._replace(redelivered=True) for each in self.deliveries()] or None
        if self.tokens is not None:
            self.tokens = self.owing()
        self.first = 0

    def take_over(self, link: Any, token: Any) -> None:
        """Note the new `token` of the only message, after the message came again over `link`."""
        self.batch, self.first, self.tokens, self.link = self.deliveries(), 0, [token], link


class Lane:
    """A double-ended queue of entries with runs.

    Invariant: the counts of `runs` add up to the number of `entries`."""

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
        """Append the entries of one run."""
        self.entries.extend(entries)
        self.runs.append(run)

    def join(self, entries: Sequence[Entry], runs: Sequence[Run]) -> None:
        """Append entries and runs from another lane."""
        self.entries.extend(entries)
        self.runs.extend(runs)

    def append(self, entry: Entry) -> None:
        self.extend((entry,), Run())

    def appendleft(self, entry: Entry) -> None:
        self.entries.appendleft(entry)
        self.runs.appendleft(Run())

    def put_back(self, entries: Sequence[Entry], runs: Sequence[Run]) -> None:
        """Put entries and runs in front, in order."""
        self.entries.extendleft(reversed(entries))
        self.runs.extendleft(reversed(runs))

    def take(self, count: int) -> tuple[list[Entry], list[Run]]:
        """Take out the first `count` entries with the runs. The last run is split if need be."""
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
        """Take out all entries and runs."""
        whole = list(self.entries), list(self.runs)
        self.clear()
        return whole

    def popleft(self) -> Entry:
        """Take out the first entry without its run."""
        # Cheaper than `take(1)`: no run is made for the entry.
        run = self.runs[0]
        run.count -= 1
        run.first += 1
        if not run.count:
            self.runs.popleft()
        return self.entries.popleft()

    def pop(self) -> tuple[Entry, Run]:
        """Take out the last entry with its run."""
        entry, run = self.entries.pop(), self.runs[-1]
        return entry, run.split_last() if run.count > 1 else self.runs.pop()

    def singles(self) -> list[Run]:
        """Give each message with a token a run of its own, and return these runs."""
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
        """Take out the messages with tokens and a true `void(run)`. Returns entries and runs."""
        # After `singles` a run with tokens has one message, so `void` judges single messages.
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
        """Take out the entry at `index`: an entry without an envelope."""
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

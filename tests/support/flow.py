"""Numbered messages through a message broker while things break: who wrote what, who read what.

A writer thread and a reader thread, each with a connection of its own. The writer never writes a number
twice: what was not confirmed stays so, and may or may not arrive.
"""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType

from tests.support.waiting import Background, until
from trunkline import Connection, Message

__all__ = ["LOSS", "Flow"]

LOSS = "lost"
_WRITE_MS = 3000
_READ_MS = 200


class Flow:
    """`with Flow(reader, writer) as flow:` writes and reads until the block ends."""

    def __init__(self, reader: Connection, writer: Connection) -> None:
        self.reader, self.writer = reader, writer
        self.confirmed: set[int] = set()
        self.unconfirmed: set[int] = set()
        self.seen: list[int | str] = []
        """Numbers in the order in which they were read, and LOSS where the reader was told of an outage."""
        self.flagged: set[int] = set()
        """Read with the broker's word that they may have come before."""
        self._write_on, self._read_on = True, True

    def __enter__(self) -> Flow:
        self._writing = Background(self._write)
        self._reading = Background(self._read)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._write_on = self._read_on = False
        self._writing.result()
        self._reading.result()

    def _write(self) -> None:
        number = 0
        while self._write_on:
            number += 1
            taken = self.writer.write(str(number), _WRITE_MS)
            (self.confirmed if taken else self.unconfirmed).add(number)
            # Enough to have some in every place at any moment, few enough to be through soon.
            threading.Event().wait(0.002 if taken else 0.01)

    def _read(self) -> None:
        while self._read_on:
            message = self.reader.receive(_READ_MS)
            if isinstance(message, Message):
                number = int(message.data)
                self.seen.append(number)
                if message.redelivered:
                    self.flagged.add(number)
            elif message is not None and self.seen[-1:] != [LOSS]:
                self.seen.append(LOSS)

    def goes_on(self, count: int = 200, seconds: float = 60.0) -> None:
        """So many more messages are written, and the last of them is read."""
        first = len(self.confirmed)
        until(lambda: len(self.confirmed) >= first + count, "writing on", seconds)
        last = max(self.confirmed)
        until(
            lambda: any(isinstance(n, int) and n >= last for n in self.seen[-count:]),
            "reading on",
            seconds,
        )

    def finish(self, seconds: float = 60.0) -> None:
        """No more writing; everything that was confirmed shall be read."""
        self._write_on = False
        self._writing.result()
        until(
            lambda: not self.missing(), f"reading {len(self.missing())} of those written", seconds
        )

    def missing(self) -> set[int]:
        """Confirmed and not read."""
        return self.confirmed - {entry for entry in self.seen if isinstance(entry, int)}

    def twice(self) -> set[int]:
        """Read more than once."""
        return {
            entry
            for entry, times in Counter(self.seen).items()
            if times > 1 and isinstance(entry, int)
        }

    @property
    def written(self) -> int:
        """The highest number that was written so far."""
        return max({0, *self.confirmed, *self.unconfirmed})

    def gaps(self, unsure: range) -> list[tuple[int, int]]:
        """Places where confirmed numbers are missing though the reader was not told of an outage there: the
        numbers before and after. `unsure` are those that the writer's own link may have lost: where nothing
        is acknowledged, they count as written when the system has taken them."""
        found, before, told = [], 0, False
        for entry in self.seen:
            if isinstance(entry, str):
                told = True
                continue
            if not told and any(
                number in self.confirmed and number not in unsure
                for number in range(before + 1, entry)
            ):
                found.append((before, entry))
            before, told = max(before, entry), False
        return found

"""Rows on their way out of a worker: packed in batches of about the same size, whatever a row holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trunkline.actors.driver import FIRST_ROWS, Rows
from trunkline.wire import values
from trunkline.wire.table import pack_rows

__all__ = ["BATCH_BYTES", "Batches"]

BATCH_BYTES = 256 * 1024
"""Of packed rows: small enough to be no memory, large enough that a round trip is nothing."""
LONGEST = 20_000
"""Rows of a batch, however small they are."""


class Batches:
    """The rows of a driver, batch by batch."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._count = FIRST_ROWS
        self.more = True
        """Whether there may be another batch."""

    def measured(self, rows: int, packed: int) -> None:
        """So many rows were so many bytes: the next batch is made to fit."""
        if rows:
            self._count = max(1, min(LONGEST, BATCH_BYTES * rows // max(1, packed)))

    def next(self) -> Sequence[Any]:
        """The next rows; none at the end."""
        count = self._count
        found = self._rows.fetch(count)
        if len(found) < count:
            self.more = False
            self._rows.close()
        return found

    def packed(self, *before: Any) -> tuple[int, bytes]:
        """The next rows as one packed value, behind what is given and whether more may come; and how many."""
        rows = self.next()
        body = values.pack([*before, self.more, pack_rows(rows)])
        self.measured(len(rows), len(body))
        return len(rows), body

    def close(self) -> None:
        self.more = False
        self._rows.close()

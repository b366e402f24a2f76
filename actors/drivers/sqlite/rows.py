"""Rows of a SELECT that are fetched part by part, over the open cursor of the SELECT."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import Any, Protocol

from trunkline.actors.driver import Rows
from trunkline.actors.drivers.sqlite.errors import REFUSALS
from trunkline.actors.drivers.sqlite.types import exact, in_zone, rounded
from trunkline.errors import StatementError

__all__ = ["OpenRows"]

_SKIP = 1000
"""Rows that are passed over at once."""


class Owner(Protocol):
    """The part of the driver that open rows need."""

    @property
    def live(self) -> sqlite3.Connection:
        """ClosedError if the connection is closed."""

    def running(self) -> None:
        """Note that a call begins which may be interrupted."""

    def refused(self, error: BaseException) -> StatementError: ...

    def forget(self, rows: OpenRows) -> None: ...


class OpenRows(Rows):
    """The rows of a SELECT behind its first rows.

    Columns with a declared type give REAL values as text of 15 digits.
    If such a value was read, the statement is run again without declared types, in step with the
    first run, for the missing digits.
    """

    def __init__(
        self,
        owner: Owner,
        cursor: sqlite3.Cursor,
        columns: list[str],
        text: str,
        values: Any,
        zone: str | None,
    ) -> None:
        self.columns = columns
        self._owner = owner
        self._cursor: sqlite3.Cursor | None = cursor
        self._plain: sqlite3.Cursor | None = None
        """The cursor of the second run, without declared types."""
        self._text, self._values = text, values
        self._zone = zone
        self._read = self._plain_read = 0
        """How many rows of each run were read."""

    def fetch(self, count: int) -> list[list[Any]]:
        self._owner.running()
        if self._cursor is None:
            return []
        try:
            before = rounded()
            rows = list(map(list, self._cursor.fetchmany(count)))
            self.take(rows, inexact=rounded() != before)
        except REFUSALS as error:
            self.close()
            raise self._owner.refused(error) from None
        if len(rows) < count:
            self.close()
        return rows

    def take(self, rows: list[list[Any]], *, inexact: bool) -> None:
        """Correct and count the rows that were fetched.

        `inexact`: a REAL value in the rows was read as text.
        """
        if inexact:
            self._correct(rows)
        self._read += len(rows)
        if self._zone:
            in_zone(rows, self._zone)

    def _correct(self, rows: list[list[Any]]) -> None:
        """Replace rounded floats of `rows` by exact ones, from a second run of the statement."""
        if self._plain is None:
            again = _undeclared(self._text, len(self.columns))
            self._plain = self._owner.live.execute(again, self._values)
        while self._plain_read < self._read:
            skipped = len(self._plain.fetchmany(min(_SKIP, self._read - self._plain_read)))
            if not skipped:
                # Rows were deleted meanwhile.
                return
            self._plain_read += skipped
        exact(rows, self._plain.fetchmany(len(rows)))
        self._plain_read += len(rows)

    def close(self) -> None:
        cursors, self._cursor, self._plain = (self._cursor, self._plain), None, None
        for cursor in cursors:
            if cursor is not None:
                # The connection is closed already.
                with suppress(sqlite3.Error):
                    cursor.close()
        self._owner.forget(self)


def _undeclared(text: str, columns: int) -> str:
    """The statement with results that have no declared type."""
    names = [f"c{index}" for index in range(columns)]
    # The line end ends a comment at the end of the text.
    return f"WITH plain({', '.join(names)}) AS ({text}\n) SELECT +{', +'.join(names)} FROM plain"

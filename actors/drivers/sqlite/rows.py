"""Rows of a SELECT that are fetched bit by bit, over its open cursor."""

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


class Owner(Protocol):
    """What open rows need of their driver."""

    @property
    def live(self) -> sqlite3.Connection:
        """ClosedError when the connection is closed."""

    def running(self) -> None:
        """Something begins that may be interrupted."""

    def refused(self, error: BaseException) -> StatementError: ...

    def forget(self, rows: OpenRows) -> None: ...


class OpenRows(Rows):
    """See the module. `rows`, the first ones, have been fetched already.

    Columns with a declared type give REAL values as text of 15 digits. Where one was seen, the statement is
    run once more without declared types, in step with the first, for the digits that are missing.
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
        self._text, self._values = text, values
        self._zone = zone
        self._read = self._plain_read = 0

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
        """Make the rows that were fetched ours. `inexact`: a REAL value in them was read as text."""
        if inexact:
            self._correct(rows)
        self._read += len(rows)
        if self._zone:
            in_zone(rows, self._zone)

    def _correct(self, rows: list[list[Any]]) -> None:
        if self._plain is None:
            again = _undeclared(self._text, len(self.columns))
            self._plain = self._owner.live.execute(again, self._values)
        while self._plain_read < self._read:
            skipped = len(self._plain.fetchmany(min(_SKIP, self._read - self._plain_read)))
            if not skipped:
                return  # rows were deleted meanwhile
            self._plain_read += skipped
        exact(rows, self._plain.fetchmany(len(rows)))
        self._plain_read += len(rows)

    def close(self) -> None:
        cursors, self._cursor, self._plain = (self._cursor, self._plain), None, None
        for cursor in cursors:
            if cursor is not None:
                with suppress(sqlite3.Error):  # its connection is closed already
                    cursor.close()
        self._owner.forget(self)


def _undeclared(text: str, columns: int) -> str:
    """The statement with results that have no declared type any more."""
    names = [f"c{index}" for index in range(columns)]
    # the line end is for a comment at the end of the text
    return f"WITH plain({', '.join(names)}) AS ({text}\n) SELECT +{', +'.join(names)} FROM plain"

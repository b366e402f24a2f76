"""One statement for many rows of values, at the speed of `sqlite3` itself.

The library takes the rows unchanged and converts unknown types with the adapters of
`register_adapters`. Only if the library refuses a value are the rows converted here. That
conversion either finds the wrong value and its row, or makes values that the adapters cannot make
(members of an Enum, subclasses).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, count
from typing import Any

from trunkline.actors.drivers.sqlite.decimals import check_decimals, long_decimals
from trunkline.actors.drivers.sqlite.errors import REFUSALS, error_name
from trunkline.actors.drivers.sqlite.steps import Binds, Step, in_order, steps
from trunkline.errors import StatementError

__all__ = ["Bulk", "Misfit"]


class Misfit(Exception):
    """A value or a row that `sqlite3` does not take. `__cause__` is the error of `sqlite3`."""


class Bulk:
    """The rows of one `executemany`, and the number of the row that was reached."""

    def __init__(self, sql: str, rows: Sequence[Binds]) -> None:
        self._step = _only(sql)
        self._rows: Sequence[Any] = rows
        self._reached = 0
        self._converted = False
        self._long_before = long_decimals()
        # All rows have the same form, so only the first row is looked at.
        # The rows are unpacked one by one.
        self._by_name = bool(rows) and isinstance(rows[0], dict)
        in_turn = self._step.order == tuple(range(self._step.wanted))
        if not (self._by_name or in_turn):
            self.convert()

    @property
    def reached(self) -> int:
        """The number, from 1, of the row that was run last; 0 before the first row."""
        return self._reached

    def run(self, connection: sqlite3.Connection) -> int:
        """Run the statement for each row, in a transaction that the caller has begun.

        Returns how many rows of the table were changed. Raises Misfit, or an error of SQLite.
        """
        text = self._step.text if self._by_name else self._step.positional
        taken = count(1)
        # Counts the rows that are taken, in C.
        left = compress(self._rows, taken)
        try:
            if self._step.plain:
                return max(0, connection.executemany(text, left).rowcount)
            return sum(_counted(connection, text, row) for row in left)
        except (*REFUSALS, StatementError, TypeError, BufferError) as error:
            if error_name(error):
                raise
            raise Misfit from error
        finally:
            self._reached = next(taken) - 1

    def convert(self) -> None:
        """Put the values of every row in order, in the form that SQLite stores.

        StatementError for the first row that does not fit.
        """
        if not self._converted:
            self._rows = list(_in_order(self._step, self._rows))
            self._converted, self._by_name = True, False

    def check_decimals(self, connection: sqlite3.Connection) -> None:
        """StatementError, with the number of the row, for a Decimal that its column has rounded.

        Called after `run` and before the commit.
        If no LongDecimal was written, the rows are not looked at.
        """
        if long_decimals() == self._long_before:
            return
        rows = self._rows if self._converted else _in_order(self._step, self._rows)
        for number, row in enumerate(rows, 1):
            try:
                check_decimals(connection, self._step.positional, row)
            except StatementError as error:
                wrong = _at_row(error, number)
            else:
                continue
            raise wrong

    def at_row(self, error: StatementError) -> StatementError:
        """The error with the number of the refused row, if the error is about a value."""
        of_values = error.code is None or str(error.code).startswith(_OF_VALUES)
        return _at_row(error, self.reached) if self.reached and of_values else error


_OF_VALUES = ("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG")
"""Codes of errors about a value."""


def _only(sql: str) -> Step:
    """The only statement of a text.

    StatementError for several statements, and for a statement that is not a write.
    """
    found = steps(sql)
    if len(found) != 1:
        raise StatementError(
            f"executemany takes one statement, and this text has {len(found) or 'none'}"
        )
    if not found[0].writes:
        raise StatementError(
            "executemany takes INSERT, UPDATE, DELETE or REPLACE; use exec for anything else"
        )
    return found[0]


def _in_order(step: Step, rows: Iterable[Any]) -> Iterator[list[Any]]:
    """The values of each row in the order of the placeholders.

    StatementError, with the number of the row, for a row that does not fit.
    """
    for number, row in enumerate(rows, 1):
        try:
            values = in_order(step, row)
        except StatementError as error:
            wrong = _at_row(error, number)
        else:
            yield values
            continue
        raise wrong


def _counted(connection: sqlite3.Connection, text: str, row: Any) -> int:
    """Run one row. Returns how many rows of the table were changed."""
    connection.execute(text, row).fetchall()
    count: int = connection.execute("SELECT changes()").fetchone()[0]
    return count


def _at_row(error: StatementError, number: int) -> StatementError:
    return StatementError(f"row {number}: {error}", code=error.code)

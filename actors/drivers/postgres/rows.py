"""The rows of a statement: rows that psycopg2 already holds, and rows that wait at the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from trunkline.actors.driver import FIRST_ROWS, Rows
from trunkline.errors import StatementError

if TYPE_CHECKING:
    from trunkline.actors.drivers.postgres.driver import PostgresDriver

__all__ = ["CursorRows", "HeldRows", "Repair"]

Repair = Callable[[Sequence[Any]], Sequence[Any]]
"""Converts values of rows that psycopg2 returned as text because their type was not known yet."""


class HeldRows(Rows):
    """The rows of a result that the client holds completely."""

    def __init__(
        self, driver: PostgresDriver, cursor: Any, columns: list[str], repair: Repair | None
    ) -> None:
        self.columns = columns
        self._driver = driver
        self._cursor = cursor
        self._repair = repair

    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        if self._cursor.closed:
            return []
        rows: Sequence[Any] = self._driver.take(lambda: self._cursor.fetchmany(count))
        if len(rows) < count:
            self.close()
        return rows if self._repair is None else self._repair(rows)

    def close(self) -> None:
        self._cursor.close()


class CursorRows(Rows):
    """The rows of a server-side cursor.

    A few of the rows are here at a time.

    A cursor lives in a transaction: in the open transaction, or in a transaction of its own,
    which ends with the cursor.
    """

    def __init__(self, driver: PostgresDriver, name: str, own: bool) -> None:
        self.columns = []
        self.own = own
        """The transaction belongs to the cursor alone."""
        self._driver = driver
        self._name = name
        self._here: Sequence[Any] = []
        """Rows that were fetched and not taken yet."""
        self._more = True
        """The server may have more rows."""
        self._lost = False
        """The transaction of the cursor has ended before all rows were taken."""

    def begin(self, text: str, binds: Any) -> None:
        """Declare the cursor for a statement and fetch the first rows, in one round trip."""
        begin = "BEGIN;" if self.own else ""
        declare = f"{begin}DECLARE {self._name} NO SCROLL CURSOR FOR {text}\n;"
        self._fetch(FIRST_ROWS, declare, binds)

    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        """The next `count` rows; fewer at the end.

        At least `FIRST_ROWS` rows are fetched from the server at once.
        """
        if self._lost:
            raise StatementError(
                "the query ended with its transaction; read its rows before that ends"
            )
        found: list[Any] = []
        while True:
            taken = self._here[: count - len(found)]
            self._here = self._here[len(taken) :]
            if not found and len(taken) == count:
                return taken
            found.extend(taken)
            if len(found) == count or not self._more:
                return found
            self._fetch(max(count - len(found), FIRST_ROWS))

    def _fetch(self, count: int, before: str = "", binds: Any = None) -> None:
        """Fetch rows from the server.

        At the end of the rows, or after an error, the cursor is given back.
        """
        try:
            result = self._driver.run(
                f"{before}FETCH FORWARD {count} FROM {self._name}", binds, whole=True
            )
            self.columns = result.columns
            self._here = result.values
            self._more = len(result.values) == count
            if not self._more:
                self._end("COMMIT")
        except StatementError:
            self._more = False
            self._end("ROLLBACK")
            raise

    def close(self) -> None:
        """Give up the rows and the cursor. A failed transaction of the cursor is rolled back."""
        self._here = []
        if self._more:
            self._more = False
            try:
                self._end("COMMIT")
            except StatementError:
                self._end("ROLLBACK")

    def lose(self) -> None:
        """Give up the cursor, because its transaction has ended or is about to end."""
        self._lost = self._lost or self._more or bool(self._here)
        self._more = False
        self._here = []
        self._driver.rows = None

    def _end(self, word: str) -> None:
        """Give the cursor back.

        In a transaction that has failed, the cursor does not exist any more.
        """
        if self._driver.rows is self:
            self._driver.rows = None
        if self.own:
            if self._driver.in_transaction():
                self._driver.run(word)
        elif word == "COMMIT":
            self._driver.run(f"CLOSE {self._name}")

"""The cursor of PEP 249: one statement at a time on a connection, and its rows."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trunkline.db.errors import Error, InterfaceError, ProgrammingError
from trunkline.db.procedures import call_procedure
from trunkline.db.text import gives_rows
from trunkline.db.types import LOOKED_AT, Column, described
from trunkline.errors import TrunklineError
from trunkline.proxy.rows import Rows
from trunkline.wire.foreign import record_values

if TYPE_CHECKING:
    from trunkline.dbapi import Connection

__all__ = ["Cursor"]


class Cursor:
    """The cursor that `Connection.cursor` returns: iterable, a context manager. Rows are tuples."""

    def __init__(self, connection: Connection, *, stream: bool) -> None:
        self.connection = connection
        self.arraysize = 1
        self.description: list[Column] | None = None
        self.rowcount: int = -1
        """Rows that the last statement returned or changed;
        -1 if the number is unknown, as with `stream`.
        """
        self.lastrowid: int | None = None
        """The id of the last row that the last statement inserted, if the database tells the id."""
        self.rownumber: int | None = None
        self.counts_found = False
        """True: `rowcount` of an UPDATE is the number of rows found, including rows that already
        had the new values. Only MySQL counts found rows apart from changed rows.
        """
        self._stream = stream
        self._sets: list[dict[str, Any]] = []
        """The result sets that `nextset` has not reached yet."""
        self._rows: Iterator[Sequence[Any]] | None = None
        """The rows that are not fetched yet; None without rows."""
        self._open: Rows | None = None
        """The open query of a cursor with `stream`."""
        self._given_up = False
        """The rows were given up because their transaction ended."""
        self._closed = False

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Cursor:
        """Run one statement with its values.

        The values are a sequence for `?`, on SQLite also a mapping for `:name`.

        Returns the cursor itself.
        """
        self._start()
        connection = self.connection
        if connection._controlled(sql):
            return self
        binds = _binds(parameters)
        if self._stream and gives_rows(sql, connection._link._about.scheme):
            self._query(sql, binds)
            return self
        self._take(self._run(sql, binds))
        return self

    def _take(self, result: dict[str, Any]) -> None:
        """Take the rows and counts of a statement's result."""
        self._show(result)
        self._sets = result.get("more", [])
        self._count(result, len(result["values"]) if result["columns"] else -1)

    def _show(self, result_set: dict[str, Any]) -> None:
        """Take the rows and columns of one result set."""
        rows = result_set["values"]
        self.description = described(result_set["columns"], rows)
        self._rows, self.rownumber = (
            (iter(rows), 0) if self.description is not None else (None, None)
        )

    def nextset(self) -> bool | None:
        """Go on to the next result set of the last statement.

        A procedure, or several statements in one text, may have several.

        Returns True and gives up the remaining rows of the current result set.
        Returns None and gives up nothing if there is no further result set.
        """
        self._check()
        if not self._sets:
            return None
        self._show(self._sets.pop(0))
        return True

    def _query(self, sql: str, binds: Any) -> None:
        """Run a statement whose rows are fetched from the database while the program reads."""
        connection = self.connection
        rows = connection._run(connection._link._statements.query, sql, binds)
        self._open = rows
        connection._streams.add(self)
        first = connection._call(lambda: list(itertools.islice(rows, LOOKED_AT)))
        self.description = described(rows.columns, first)
        if self.description is None:
            self._give_up()
        else:
            self._rows, self.rownumber = itertools.chain(first, rows), 0

    def executemany(self, sql: str, rows: Iterable[Sequence[Any] | Mapping[str, Any]]) -> Cursor:
        """Run one statement once for each row of values.

        The rows go in one message, at the best speed of the database.

        All rows are written or none, if the database has transactions. Returns the cursor itself.
        """
        self._start()
        connection = self.connection
        given = [_binds(row) for row in rows]
        if not given:
            self.rowcount = 0
            return self
        result = connection._run(connection._link._statements.executemany, sql, given)
        self._count(result, -1)
        return self

    def _count(self, result: dict[str, Any], otherwise: int) -> None:
        """Take the counts of a result. `otherwise`: the count if the database told none."""
        self.rowcount = result.get("affected", otherwise)
        if self.counts_found:
            self.rowcount = result.get("matched", self.rowcount)
        self.lastrowid = result.get("last_id")

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row; None after the last row.

        ProgrammingError if the last statement returned no rows, or if the rows were given up at
        the end of their transaction.
        """
        rows = self.fetchmany(1)
        return rows[0] if rows else None

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """The next rows, `size` (default `arraysize`) at most."""
        rows = self._readable()
        wanted = self.arraysize if size is None else size
        return self._fetched(lambda: list(map(tuple, itertools.islice(rows, wanted))))

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All remaining rows."""
        rows = self._readable()
        return self._fetched(lambda: list(map(tuple, rows)))

    def _fetched(self, work: Callable[[], list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
        """Fetch rows with `work`, and count them."""
        rows: list[tuple[Any, ...]] = (
            self.connection._call(work) if self._open is not None else work()
        )
        self.rownumber = (self.rownumber or 0) + len(rows)
        return rows

    def _readable(self) -> Iterator[Sequence[Any]]:
        """The rows that are not fetched yet. ProgrammingError if there are none to fetch."""
        self._check()
        if self._given_up:
            raise ProgrammingError(
                "the rows were given up when their transaction ended; read them before"
            )
        if self._rows is None:
            raise ProgrammingError(
                "there are no rows to fetch: execute a statement that gives some"
            )
        return self._rows

    def callproc(self, name: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Call a stored procedure (in PostgreSQL a function, too).

        The result sets of the procedure become those of the cursor.

        `name` is an identifier, with a schema or database before a dot if
        that is not the current one. `parameters` has one value for each
        parameter of the procedure, None for parameters that are only OUT.
        Returns the parameters with the values that the
        procedure gave to OUT and INOUT parameters.
        NotSupportedError if the database has no procedures (SQLite, ClickHouse).
        ProgrammingError if `name` is no identifier.
        """
        self._start()
        connection = self.connection
        began = (
            not connection.autocommit
            and not connection.in_transaction
            and connection.has_transactions
        )
        if began:
            # A transaction keeps all statements of the call on one session.
            connection.begin()
        label = f"{os.getpid():x}_{id(connection):x}"
        try:
            result, found = call_procedure(
                self._run,
                connection._link._about.scheme,
                name,
                list(_binds(list(parameters))),
                label,
            )
        except Error:
            if began:
                with contextlib.suppress(Error):
                    connection.rollback()
            raise
        self._take(result)
        return found

    def _run(self, sql: str, binds: Any) -> dict[str, Any]:
        connection = self.connection
        result: dict[str, Any] = connection._run(connection._link._statements.execute, sql, binds)
        return result

    def setinputsizes(self, sizes: Sequence[Any]) -> None:
        """Do nothing: the types of the values are enough."""
        self._check()

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Do nothing: values are never cut."""
        self._check()

    def close(self) -> None:
        """Give up the rows that were not fetched. Idempotent."""
        self._give_up()
        self._given_up = False
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise InterfaceError("this cursor is closed; ask the connection for another")
        self.connection._check()

    def _start(self) -> None:
        """Forget the last statement and its rows."""
        self._check()
        self._give_up()
        self._given_up = False
        self._rows = self.description = self.lastrowid = self.rownumber = None
        self._sets = []
        self.rowcount = -1

    def _give_up(self) -> None:
        """Give up the rows that were not fetched from a stream."""
        rows, self._open = self._open, None
        if rows is not None:
            self._rows, self._given_up = None, True
            with contextlib.suppress(TrunklineError):
                rows.close()
            self.connection._streams.discard(self)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self

    def __next__(self) -> tuple[Any, ...]:
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row

    def __enter__(self) -> Cursor:
        self._check()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _binds(parameters: Any) -> list[Any] | dict[str, Any]:
    """The values of a statement as a list or dict. ProgrammingError for any other object."""
    if isinstance(parameters, Mapping):
        return dict(parameters)
    if parameters is None:
        return []
    record = record_values(parameters)
    if record is not None:
        return record
    unordered = isinstance(parameters, (str, bytes, bytearray, set, frozenset))
    if unordered or not isinstance(parameters, Iterable):
        raise ProgrammingError(
            f"a statement's values are a sequence or a mapping, not {type(parameters).__name__}; "
            "a single one is written (value,)"
        )
    return list(parameters)

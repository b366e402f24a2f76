"""PEP 249's cursor: one statement at a time on a connection, and its rows."""

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
    """What `Connection.cursor` returns: iterable, a context manager. Rows are tuples."""

    def __init__(self, connection: Connection, *, stream: bool) -> None:
        self.connection = connection
        self.arraysize = 1
        self.description: list[Column] | None = None
        self.rowcount: int = -1
        """Rows that the last statement gave or changed; -1 where that is not known, as with `stream`."""
        self.lastrowid: int | None = None
        """The id of the last row that the last statement inserted, where the database tells."""
        self.rownumber: int | None = None
        self.counts_found = False
        """True: `rowcount` of an UPDATE is the number of rows that it has found, those that were as they
        should be already included. Only MySQL counts these apart from the rows that it has changed."""
        self._stream = stream
        self._sets: list[dict[str, Any]] = []
        """The result sets that `nextset` has not come to yet."""
        self._rows: Iterator[Sequence[Any]] | None = None
        self._open: Rows | None = None
        self._given_up = False
        self._closed = False

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Cursor:
        """Run one statement with its values: in order for `?`, on SQLite also a mapping for `:name`. Returns
        the cursor itself."""
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
        """Let the rows and counts of a statement be those of this cursor."""
        self._show(result)
        self._sets = result.get("more", [])
        self._count(result, len(result["values"]) if result["columns"] else -1)

    def _show(self, result_set: dict[str, Any]) -> None:
        rows = result_set["values"]
        self.description = described(result_set["columns"], rows)
        self._rows, self.rownumber = (
            (iter(rows), 0) if self.description is not None else (None, None)
        )

    def nextset(self) -> bool | None:
        """Go on to the next result set of the last statement (of a procedure, or of several statements in
        one text), giving up the rows that are left of this one. None, and nothing given up, where there is
        none."""
        self._check()
        if not self._sets:
            return None
        self._show(self._sets.pop(0))
        return True

    def _query(self, sql: str, binds: Any) -> None:
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
        """Run one statement once for each row of values, in one message and at the database's best speed. All
        rows are written or none, where the database has transactions. Returns the cursor itself."""
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
        self.rowcount = result.get("affected", otherwise)
        if self.counts_found:
            self.rowcount = result.get("matched", self.rowcount)
        self.lastrowid = result.get("last_id")

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row; None when there is no more. ProgrammingError when the last statement had no rows to
        give, or they were given up at the end of their transaction."""
        rows = self.fetchmany(1)
        return rows[0] if rows else None

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """The next rows, `size` (default `arraysize`) at most."""
        rows = self._readable()
        wanted = self.arraysize if size is None else size
        return self._fetched(lambda: list(map(tuple, itertools.islice(rows, wanted))))

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows that are left."""
        rows = self._readable()
        return self._fetched(lambda: list(map(tuple, rows)))

    def _fetched(self, work: Callable[[], list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = (
            self.connection._call(work) if self._open is not None else work()
        )
        self.rownumber = (self.rownumber or 0) + len(rows)
        return rows

    def _readable(self) -> Iterator[Sequence[Any]]:
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
        """Call a stored procedure (of PostgreSQL, a function too), whose result sets are then this cursor's.

        `name` is an identifier, with its schema or database before a dot where it is not the current one.
        `parameters` has one value for each parameter of the procedure, None for those that are OUT alone.
        Returns the parameters with the values that the procedure gave to OUT and INOUT ones.
        NotSupportedError where the database has no procedures (SQLite, ClickHouse), ProgrammingError for a
        name that is none.
        """
        self._start()
        connection = self.connection
        began = (
            not connection.autocommit
            and not connection.in_transaction
            and connection.has_transactions
        )
        if began:
            connection.begin()  # so that all statements of it are on one session
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
        """Nothing: the values say what they are."""
        self._check()

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Nothing: values come whole."""
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
        """Forget the statement before."""
        self._check()
        self._give_up()
        self._given_up = False
        self._rows = self.description = self.lastrowid = self.rownumber = None
        self._sets = []
        self.rowcount = -1

    def _give_up(self) -> None:
        """The rows that were not fetched from a stream."""
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

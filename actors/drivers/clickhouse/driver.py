"""clickhouse: one link to a ClickHouse server over its native protocol."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC
from io import BytesIO
from itertools import chain
from typing import Any, ClassVar, NoReturn

from clickhouse_driver.errors import ServerException
from clickhouse_driver.settings.available import settings as available

from trunkline.actors.database.binds import arranged, in_order, spread
from trunkline.actors.database.bulk import BulkRows
from trunkline.actors.driver import (
    FIRST_ROWS,
    ExecDriver,
    FatalError,
    Result,
    Rows,
    break_socket,
    hung_up,
)
from trunkline.actors.drivers.clickhouse.client import Link, stop
from trunkline.actors.drivers.clickhouse.columns import Numbers
from trunkline.actors.drivers.clickhouse.errors import (
    CANCELLED,
    not_clickhouse,
    refuse_dial,
    server_text,
    translated,
)
from trunkline.actors.drivers.clickhouse.plan import Plan, plan
from trunkline.actors.drivers.clickhouse.sql import Insert, rendered, statement
from trunkline.actors.drivers.clickhouse.together import (
    Outcome,
    insert_together,
    is_all_or_nothing,
    table_of,
)
from trunkline.actors.drivers.clickhouse.types import Travelling, travelling
from trunkline.actors.net.servers import first_that_opens_here, time_to_tell
from trunkline.address.host import join_host_port
from trunkline.deadline import Deadline
from trunkline.errors import ClosedError, DialError, StatementError
from trunkline.sqltext import Dialect
from trunkline.wire.table import Table

__all__ = ["ClickhouseDriver"]

_NO_TRANSACTIONS = (
    "ClickHouse has no transactions: every INSERT takes effect by itself; leave conn.transaction() out, and"
    " give rows that belong together in one INSERT"
)
_UNREAD = "the rows of a query of this connection are not all read; read them to the end or close the query first"
_ENGINE = "SELECT engine, partition_key FROM system.tables WHERE "
"""Asks for the columns that tell whether a table stores a block as a whole."""
_OLDEST = 54058
"""The protocol's revision from which a server names its time zone: 2016.
A server that claims an older revision is not ClickHouse.
"""
_SETTINGS_AS_TEXT = 54429
"""The protocol's revision from which the server itself checks names and values of settings."""


class ClickhouseDriver(ExecDriver):
    """One native connection.

    Every statement has an id, by which it can be stopped.

    There are no transactions. `affected` is known for rows
    that are inserted as blocks. `last_id` is never known.

    Methods are called on one thread, except `interrupt` and `abort` (see `ExecDriver`).
    """

    schemes: ClassVar[tuple[str, ...]] = ("clickhouse",)
    dialect: ClassVar[str] = "clickhouse"
    extra: ClassVar[str | None] = "clickhouse"
    queries_apart: ClassVar[bool] = True
    interrupt_waits: ClassVar[bool] = True

    _link: Link | None = None
    _running: str | None = None
    """The id of the running statement, or of the open query; None without one.
    Read by `interrupt` on another thread.
    """
    _interrupted = False
    """The running statement was told to stop."""
    _rows: _Streamed | None = None
    """The open query; None if the rows of all queries are read."""
    _lost = False
    """The link broke during a statement."""

    # opening

    def open(self, deadline: Deadline) -> None:
        """Open a link to the first server that accepts one."""
        what = plan(self.address)

        def attempt(server: tuple[str, int], share: Deadline) -> Link:
            return self._dialled(
                what, *server, min(what.connect_s, share.left() - time_to_tell(share))
            )

        self._link = first_that_opens_here(what.hosts, attempt, deadline)

    def _dialled(self, what: Plan, host: str, port: int, limit: float) -> Link:
        """A link to one server. Raises DialError, or FatalError if another attempt cannot help."""
        place = join_host_port(host, port)
        link = Link(what, host, port)
        try:
            link.dial(limit)
            if link.connection.server_info.used_revision < _OLDEST:
                raise FatalError(not_clickhouse(place))
            if what.settings:
                self._apply(link, what.settings, place)
        except DialError:
            link.hang_up()
            raise
        except Exception as error:
            link.hang_up()
            refuse_dial(error, place, self.address.database or "default")
        return link

    def _apply(self, link: Link, settings: dict[str, Any], place: str) -> None:
        """Set the settings of the address, which are then sent with each statement.

        FatalError for a wrong setting.
        """
        if link.connection.server_info.used_revision < _SETTINGS_AS_TEXT:
            # To such a server the library sends only the settings that the library knows.
            known = {row[0] for row in link.execute("SELECT name FROM system.settings")}
            unknown = sorted(set(settings) - known)
            if unknown:
                raise FatalError(
                    f"{place} has no setting {unknown[0]!r}; take it out of the address"
                )
        link.settings = dict(settings)
        try:
            link.execute("SELECT 1")
        except (ServerException, ValueError) as error:
            text = server_text(error) if isinstance(error, ServerException) else _misread(settings)
            code = error.code if isinstance(error, ServerException) else None
            raise FatalError(
                f"{place} refused the settings of the address: {text}", code=code
            ) from None

    @property
    def _live(self) -> Link:
        """The link, ready for a statement. StatementError while rows of a query are unread."""
        if self._link is None:
            raise ClosedError(f"the connection to {self.peer} is closed")
        if self._rows is not None:
            raise StatementError(_UNREAD)
        return self._link

    # statements

    def execute(self, sql: str, binds: Sequence[Any] | Mapping[str, Any]) -> Result:
        what = statement(sql)
        if isinstance(what, Insert):
            return self._insert(what, [_rows_of(what, binds)])
        return self._select(self._rendered(what, binds))

    def _rendered(self, text: str, binds: Sequence[Any] | Mapping[str, Any]) -> str:
        """The text with its values in it."""
        text, values = arranged(text, in_order(binds), Dialect.CLICKHOUSE)
        return rendered(text, values, self._live.zone if values else UTC)

    def query(self, sql: str, binds: Sequence[Any] | Mapping[str, Any]) -> Rows:
        what = statement(sql)
        if isinstance(what, Insert):
            self._insert(what, [_rows_of(what, binds)])
            return _Streamed(self, iter(()), [])
        return self._begin(self._rendered(what, binds))

    def executemany(self, sql: str, rows: Sequence[Sequence[Any] | Mapping[str, Any]]) -> Result:
        """Run a statement for many rows.

        An INSERT of placeholders and literals goes as one block.
        Any other statement runs once for each row; rows that ran before an error stay.
        """
        what = statement(sql)
        if isinstance(what, Insert):
            parts = rows.parts() if isinstance(rows, BulkRows) else [rows]
            filled, before = [], 0
            for part in parts:
                filled.append(what.filled_many(part, before))
                before += len(part)
            return self._insert(what, filled)
        for row in rows:
            self.execute(sql, row)
        return Result()

    @classmethod
    def joins(cls, sql: str) -> bool:
        try:
            what = statement(sql)
        except StatementError:
            # `execute` tells the reason.
            return False
        return isinstance(what, Insert) and bool(what.rows)

    def execute_together(
        self, statements: Sequence[tuple[str, Sequence[Any] | Mapping[str, Any]]]
    ) -> list[Outcome]:
        """Send the INSERTs of each table as one block; see `insert_together`."""
        wanted = [
            (what, binds) for sql, binds in statements if isinstance(what := statement(sql), Insert)
        ]
        size = int(self._live.client_settings["insert_block_size"])
        return insert_together(wanted, _rows_of, self._insert, size, self._stores_whole)

    def _stores_whole(self, what: Insert) -> bool:
        """Whether the table stores all rows of a block or none.

        False if the server does not tell.
        """
        table = table_of(what.head)
        if table is None:
            return False
        database, name = table
        where = f"name = ? AND database = {'?' if database else 'currentDatabase()'}"
        try:
            found = self._select(
                self._rendered(_ENGINE + where, [name, database][: 2 if database else 1])
            )
        except (StatementError, ConnectionError):
            return False
        return bool(found.values) and all(is_all_or_nothing(*map(str, row)) for row in found.values)

    def _insert(self, what: Insert, parts: list[Sequence[Any]]) -> Result:
        link = self._live
        with self._statement(link) as query_id:
            return Result(affected=link.insert(what.head, parts, query_id))

    def _select(self, text: str) -> Result:
        """Run a query.

        The result has the first rows; the remaining rows, if any, are in its `rest`.
        """
        rows = self._begin(text)
        table = rows.fetch(FIRST_ROWS)
        return Result(columns=rows.columns, values=table.rows(), rest=None if rows.ended else rows)

    def _begin(self, text: str) -> _Streamed:
        """Send a query, and read the names and types of its columns."""
        link = self._live
        with self._statement(link) as query_id:
            found = link.select(text, query_id)
            kinds: list[tuple[str, str]] = next(found, [])
            if not kinds:
                # Read to the end of a statement without rows: an error may come there.
                for _ in found:
                    pass
        rows = _Streamed(self, found, kinds)
        if kinds:
            self._rows, self._running = rows, query_id
        return rows

    @contextmanager
    def _statement(self, link: Link) -> Iterator[str]:
        """Yields an id for one statement.

        Errors of the library become StatementError or ConnectionError.
        """
        database = link.connection.database
        self._interrupted = False
        self._running = query_id = uuid.uuid4().hex
        try:
            yield query_id
        except Exception as error:
            # The library notes a `USE` before the server has
            # agreed, so the former database is restored.
            link.connection.database = database
            self._failed(error)
        finally:
            self._running = None

    def _failed(self, error: Exception) -> NoReturn:
        """Raise the error in its translated form, and note whether the link is lost."""
        error = translated(error)
        self._lost = isinstance(error, (ConnectionError, DialError))
        raise error from None

    # Called on other threads.

    def interrupt(self) -> None:
        """Have the server stop the running statement, over a connection of its own."""
        # The driver thread may end the statement or the
        # link meanwhile, so both attributes are read once.
        link, query_id = self._link, self._running
        if link is None or query_id is None:
            return
        self._interrupted = True
        # The link may be closed meanwhile.
        with suppress(Exception):
            if not stop(link, query_id) and self._running == query_id:
                # The user may not KILL. Without its client the server stops the statement, too.
                self.abort()

    def abort(self) -> None:
        # `given_up` is set first, so that the driver thread does not open the link again.
        link = self._link
        if link is not None:
            link.given_up = True
            if link.fd >= 0:
                break_socket(link.fd)

    def alive(self) -> bool:
        """Whether the link can be used.

        A link that was closed after a refused statement counts as alive: it is opened again with
        the next statement, and nothing was lost.
        """
        link = self._link
        if link is None or self._lost or link.given_up:
            return False
        return not link.connection.connected or not hung_up(link.fd)

    # transactions

    def in_transaction(self) -> bool:
        return False

    def begin(self) -> None:
        raise StatementError(_NO_TRANSACTIONS)

    def commit(self) -> None:
        raise StatementError(_NO_TRANSACTIONS)

    def rollback(self) -> None:
        raise StatementError(_NO_TRANSACTIONS)

    def close(self) -> None:
        link, self._link, self._rows = self._link, None, None
        if link is not None:
            link.hang_up()


class _Streamed(Rows):
    """The rows of a query as the server sends them: block by block, and by columns."""

    def __init__(
        self, driver: ClickhouseDriver, blocks: Iterator[Any], kinds: list[tuple[str, str]]
    ) -> None:
        self.columns = [name for name, _ in kinds]
        self.ended = not kinds
        """All rows were read, or the query was closed."""
        self._driver = driver
        self._blocks = blocks
        self._kinds = [kind for _, kind in kinds]
        self._travelling: list[Travelling] = []
        """A converter for each column, made when the first block comes."""
        self._block: Sequence[Sequence[Any]] = ()
        self._at = self._size = 0
        """The next row of the block, and the number of its rows."""

    def fetch(self, count: int) -> Table:
        """The next `count` rows; fewer at the end. After an error the query is closed."""
        if self.ended:
            return Table([], 0)
        try:
            parts = [*self._parts(count)]
            size = sum(len(part[0]) for part in parts)
            if size < count:
                self._end()
                if self._driver._interrupted:
                    # A server that was told to stop may simply send
                    # no more rows, as if the result were complete.
                    raise StatementError("the statement was stopped", code=CANCELLED)
            columns = zip(self._travelling, zip(*parts, strict=True), strict=False)
            return Table([travel(_joined(column)) for travel, column in columns], size)
        except Exception as error:
            # More rows may be on their way.
            self.close()
            self._driver._failed(error)

    def _parts(self, count: int) -> Iterator[Sequence[Sequence[Any]]]:
        """The columns of `count` rows, from as many blocks as needed."""
        while count:
            if self._at == self._size:
                self._block, self._at = next(self._blocks, ()), 0
                if not self._block:
                    self._size = 0
                    return
                self._size = len(self._block[0])
                if not self._travelling:
                    pairs = zip(self._kinds, self._block, strict=True)
                    self._travelling = [
                        travelling(kind, type(column) is Numbers) for kind, column in pairs
                    ]
            start, self._at = self._at, min(self._size, self._at + count)
            count -= self._at - start
            yield [column[start : self._at] for column in self._block]

    def close(self) -> None:
        if not self.ended:
            self._end()
            link = self._driver._link
            if link is not None:
                link.cancel_rows()

    def _end(self) -> None:
        self.ended = True
        if self._driver._rows is self:
            self._driver._rows = self._driver._running = None


def _joined(parts: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """The values of a column that came in several blocks."""
    return parts[0] if len(parts) == 1 else [*chain.from_iterable(parts)]


def _rows_of(what: Insert, binds: Sequence[Any] | Mapping[str, Any]) -> Sequence[Any]:
    """The rows of an INSERT: the only value, or the rows of the text with their values.

    If the only value is used, it is a list of rows.
    """
    values = in_order(binds)
    if what.rows:
        return what.filled(spread(values, what.wanted))
    rows = values[0] if len(values) == 1 else None
    if not isinstance(rows, (list, tuple)):
        raise StatementError(
            "an INSERT without values in it takes one list of rows: exec('INSERT INTO t VALUES', [(1, 'a')])"
        )
    return rows


def _misread(settings: Mapping[str, Any]) -> str:
    """The text for a setting with a value that the library cannot send."""
    for name, value in settings.items():
        try:
            if name in available:
                available[name].write(value, BytesIO())
        except ValueError:
            return f"{name} takes no {value!r}"
    return "a value is not one that its setting takes"

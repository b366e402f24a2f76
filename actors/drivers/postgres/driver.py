"""postgres: a PostgreSQL server through psycopg2, dialled as lib/pq dials."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

import psycopg2
from psycopg2 import extensions

from trunkline.actors.database.binds import arranged, has_containers, has_lists_for, in_order
from trunkline.actors.database.sql.placeholders import wanted
from trunkline.actors.driver import (
    FIRST_ROWS,
    ExecDriver,
    FatalError,
    Result,
    Rows,
    break_socket,
    hung_up,
)
from trunkline.actors.drivers.postgres import bulk as postgres_bulk
from trunkline.actors.drivers.postgres.cancel import CANCELLED, Canceller, Interrupts
from trunkline.actors.drivers.postgres.descriptions import Descriptions
from trunkline.actors.drivers.postgres.errors import LOCAL, dial_error, is_lost, one_line, refusal
from trunkline.actors.drivers.postgres.notices import Notices
from trunkline.actors.drivers.postgres.plan import (
    connect_arguments,
    connect_seconds,
    forget_environment,
    one_by_one,
)
from trunkline.actors.drivers.postgres.rows import CursorRows, HeldRows
from trunkline.actors.drivers.postgres.settings import setting_statement, those_reset
from trunkline.actors.drivers.postgres.shapes import Shape, all_take
from trunkline.actors.drivers.postgres.statements import Text, plain, read
from trunkline.actors.drivers.postgres.types import Types, to_server
from trunkline.actors.net.servers import first_that_opens_here
from trunkline.deadline import Deadline
from trunkline.errors import ClosedError, DialError, StatementError
from trunkline.sqltext import Dialect

__all__ = ["PostgresDriver"]

T = TypeVar("T")
_OPEN = (extensions.TRANSACTION_STATUS_INTRANS, extensions.TRANSACTION_STATUS_INERROR)
"""States of a connection that has a transaction open."""
_COUNTED = ("INSERT", "UPDATE", "DELETE", "MERGE", "COPY")
"""Statements whose answer has a count of rows."""
_FAILURES = (psycopg2.Error, *LOCAL)
_UNREAD = "the rows of a query of this transaction are not all read; read them to the end or close the query first"
_ROWS = "trunkline_rows"
"""The savepoint of an executemany inside of a transaction."""


class PostgresDriver(ExecDriver):
    """One connection to PostgreSQL in autocommit mode.

    `docs/postgres.md` has its types and parameters.

    Several statements in one text are one transaction, as the server treats them.
    The result has the result sets of all statements with rows; `affected` is the count of the
    last statement that has one.

    Methods are called on one thread, except `interrupt` and `abort` (see `ExecDriver`).
    """

    schemes: ClassVar[tuple[str, ...]] = ("postgres", "postgresql")
    dialect: ClassVar[str] = "postgres"
    transient: ClassVar[tuple[type[BaseException], ...]] = (DialError, OSError)
    extra: ClassVar[str | None] = "postgres"
    queries_apart: ClassVar[bool] = True
    interrupt_waits: ClassVar[bool] = True

    _settings: Mapping[str, str] = {}
    """Settings of the server that the address names. Set again when a statement resets them."""
    rows: CursorRows | None = None
    """The open query; None if the rows of all queries are read."""
    _connection: Any = None
    _interrupts: Interrupts | None = None
    """The cancel requests of the link; None while there is no link."""
    _queries = 0
    """How many cursors were declared; makes the name of the next cursor."""

    @property
    def peer(self) -> str:
        return self.address.path if self.address.net == "unix" else super().peer

    # the link

    def open(self, deadline: Deadline) -> None:
        address, arguments, self._settings = connect_arguments(self.address)
        self.address = address
        forget_environment()
        servers = one_by_one(address, arguments)
        try:
            connection = self._connect(arguments, self.peer, deadline)
        except FatalError:
            if len(servers) == 1:
                raise
            # libpq goes on to the next server if a server does
            # not answer, but not if a server refuses the login.
            connection = first_that_opens_here(
                servers, lambda one, share: self._connect_to(one, arguments, share), deadline
            )
        self._begin_life(connection)

    def _connect_to(
        self, one: Mapping[str, str], arguments: Mapping[str, str], deadline: Deadline
    ) -> Any:
        """A connection to one of several servers."""
        peer = one["host"] if one["host"].startswith(("/", "@")) else f"{one['host']}:{one['port']}"
        return self._connect({**arguments, **one}, peer, deadline, servers=1)

    def _connect(
        self,
        arguments: Mapping[str, str],
        peer: str,
        deadline: Deadline,
        servers: int | None = None,
    ) -> Any:
        """A connection of psycopg2.

        Raises DialError, or FatalError if another attempt cannot help.
        """
        seconds = connect_seconds(self.address, deadline, servers)
        try:
            return psycopg2.connect(connect_timeout=seconds, **arguments)
        except _FAILURES as error:
            failure = dial_error(error, peer)
        raise failure

    def _begin_life(self, connection: Any) -> None:
        """Prepare a new connection: its settings, its casters and its cancel requests."""
        self._connection = connection
        self._notices = Notices(lambda text: self.warn(f"{self.address.display}: {text}"))
        self._descriptions = Descriptions(self)
        connection.autocommit = True
        try:
            self._set(self._settings)
        except StatementError as error:
            self.close()
            text = f"{self.peer} refused the settings of the address: {error}"
            raise FatalError(text, code=error.code) from None
        except ConnectionError as error:
            self.close()
            raise DialError(f"{self.peer} was lost at the login: {error}") from None
        self._types = Types(connection)
        canceller = Canceller(connection.pgconn_ptr)
        self._interrupts = Interrupts(canceller)
        if not canceller.possible:
            self.warn("this libpq cannot cancel statements: pip install --upgrade psycopg2-binary")

    def _set(self, settings: Mapping[str, str]) -> None:
        """Set settings of the server for this session."""
        if settings:
            text, values = setting_statement(settings)
            cursor = self.take(self._connection.cursor)
            self.take(partial(cursor.execute, text, values))
            cursor.close()

    def alive(self) -> bool:
        """Whether the link can be used: the server holds it, and no cancel request is loose."""
        # A loose cancel request could stop the next statement, so the link is given up.
        # In a transaction the link stays, because a new link would lose the transaction.
        connection = self._connection
        if connection is None or connection.closed or hung_up(connection.fileno()):
            return False
        is_loose = self._interrupts is not None and self._interrupts.is_loose
        return not is_loose or self.in_transaction()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        interrupts, self._interrupts = self._interrupts, None
        if interrupts is not None:
            interrupts.close()
        if connection is not None:
            connection.close()

    def reset(self) -> bool:
        self.run("DISCARD ALL")
        self._set(self._settings)
        return True

    def interrupt(self) -> None:
        # Called on another thread.
        # The driver thread may close the link meanwhile, so the attribute is read once.
        interrupts = self._interrupts
        if interrupts is not None:
            interrupts.interrupt()

    def abort(self) -> None:
        connection = self._connection
        # The driver thread may have closed the connection meanwhile.
        with contextlib.suppress(psycopg2.Error):
            if connection is not None:
                break_socket(connection.fileno())

    def take(self, work: Callable[[], T]) -> T:
        """The result of a call of psycopg2.

        Errors of psycopg2 become StatementError or ConnectionError.
        """
        try:
            return work()
        except _FAILURES as error:
            failure = self._failure(error)
        finally:
            if self._connection is not None:
                self._notices.tell(self._connection)
        raise failure

    def _failure(self, error: Exception) -> Exception:
        """The error to raise for an error of psycopg2."""
        connection = self._connection
        if is_lost(error, connection is None or bool(connection.closed)):
            return ConnectionError(one_line(str(error)) or "the server has closed the connection")
        failure = refusal(error)
        if failure.code == CANCELLED and self._interrupts is not None:
            self._interrupts.note_cancelled()
        return failure

    def _ready(self) -> None:
        """Check that the link is free for a statement, and forget interrupts of the last one."""
        if self._connection is None:
            raise ClosedError(f"the connection to {self.peer} is closed")
        if self.rows is not None:
            raise StatementError(_UNREAD)
        if self._interrupts is not None:
            self._interrupts.forget()
            self._absorb_cancel(self._interrupts)

    def _absorb_cancel(self, interrupts: Interrupts) -> None:
        """Send a statement that does nothing, for a cancel request that came too late.

        A pooler may deliver such a request late.
        Not in a transaction, where a cancelled statement would fail the transaction.
        """
        if interrupts.take_late(in_transaction=self.in_transaction()):
            try:
                self.run("SELECT 1")
            except StatementError as error:
                if error.code != CANCELLED:
                    raise

    # statements

    def execute(self, sql: str, binds: Sequence[Any] | Mapping[str, Any]) -> Result:
        """Run a text. Settings of the address that the text resets are set again."""
        self._ready()
        text, values = self._read(sql, binds)
        if not text.statements:
            return Result()
        result = self._run_read(sql, binds, text, values)
        if self._settings and (lost := those_reset(text.statements, self._settings)):
            self._set(lost)
        return result

    def _run_read(
        self,
        sql: str,
        binds: Sequence[Any] | Mapping[str, Any],
        text: Text,
        values: list[Any] | None,
    ) -> Result:
        """Run a text that was read.

        A refused statement is run again if the server's
        types have changed since they were asked for.
        """
        self._descriptions.note_statements(text)
        if len(text.statements) > 1:
            return self._several(text)
        try:
            result = self.run(text.formatted, values)
        except StatementError as error:
            # A column may have changed its type since the server was asked.
            if not self._descriptions.forget_stale(error, text) or self.in_transaction():
                raise
            text, values = self._read(sql, binds)
            result = self.run(text.formatted, values)
        if text.one.transaction == "commit" and self._status == "ROLLBACK":
            raise _not_committed()
        return result

    def _read(
        self, sql: str, binds: Sequence[Any] | Mapping[str, Any]
    ) -> tuple[Text, list[Any] | None]:
        """The text and the values as psycopg2 takes them.

        StatementError for values that do not fit.
        """
        if isinstance(binds, Mapping) and wanted(sql, Dialect.POSTGRES) != 1:
            raise StatementError("postgres takes values in order, not by name; write ? for each")
        sql, given = arranged(sql, in_order(binds), Dialect.POSTGRES)
        text = read(sql, len(given))
        if given:
            self._check_strings(sql)
        fits = partial(all_take, given)
        shapes = self.shapes(text, len(given), fits) if has_containers(given) else ()
        return text, text.values(self.take(partial(to_server, given, shapes)))

    def shapes(
        self, text: Text, count: int, fits: Callable[[Sequence[Shape]], bool]
    ) -> Sequence[Shape]:
        """The shape that each value of one statement may have; see `Descriptions.shapes`."""
        return self._descriptions.shapes(text, count, fits)

    def _several(self, text: Text) -> Result:
        """Run statement by statement, because psycopg2 shows only the last result."""
        own = not text.transactional and not self.in_transaction()
        if own:
            self.run("BEGIN")
        result = Result()
        try:
            for statement in text.statements:
                self.check_interrupted()
                found = self.run(plain(statement))
                if statement.transaction == "commit" and self._status == "ROLLBACK":
                    raise _not_committed()
                _merge(result, found)
            if own:
                self._commit()
        except ConnectionError:
            raise
        except Exception:
            if own:
                self.rollback()
            raise
        return result

    def run(self, text: str, values: Sequence[Any] | None = None, whole: bool = False) -> Result:
        """Run a text in psycopg2's form. `whole`: fetch all rows at once."""
        cursor = self.take(self._connection.cursor)
        self.take(partial(cursor.execute, text, values))
        self._status: str = cursor.statusmessage or ""
        if self._says("client_encoding") not in ("UTF8", None):
            self._keep_utf8()
        if not cursor.description:
            cursor.close()
            word, _, count = self._status.partition(" ")
            return Result(affected=int(count.split()[-1]) if word in _COUNTED and count else None)
        return self._result(cursor, whole)

    def _check_strings(self, sql: str) -> None:
        """Refuse values for a text with a backslash if the session's settings change its meaning.

        The setting decides where a string ends, and so which `?` is a placeholder.
        """
        if "\\" in sql and self._says("standard_conforming_strings") == "off":
            raise StatementError(
                "with standard_conforming_strings=off a text with a backslash takes no values; set it on"
            )

    def _says(self, setting: str) -> str | None:
        """The value of a setting that the server reports after each change."""
        value: str | None = self._connection.get_parameter_status(setting)
        return value

    def _keep_utf8(self) -> None:
        """Set client_encoding back, because psycopg2 goes on sending UTF-8, and raise an error."""
        self.take(partial(self._connection.cursor().execute, "SET client_encoding TO 'UTF8'"))
        raise StatementError(
            "client_encoding has to be UTF8 here and was set back; texts are str on this side"
        )

    def _result(self, cursor: Any, whole: bool) -> Result:
        """A result with the first rows of a cursor.

        The remaining rows, if any, are in its `rest`.
        """
        columns = [column.name for column in cursor.description]
        repair = self._types.repair(cursor)
        rows: Sequence[Any] = self.take(
            cursor.fetchall if whole else partial(cursor.fetchmany, FIRST_ROWS)
        )
        rest = None
        if cursor.rowcount > len(rows):
            rest = HeldRows(self, cursor, columns, repair)
        word = self._status.partition(" ")[0]
        affected = cursor.rowcount if word in _COUNTED else None
        if rest is None:
            cursor.close()
        return Result(columns, rows if repair is None else repair(rows), affected, None, rest)

    def query(self, sql: str, binds: Sequence[Any] | Mapping[str, Any]) -> Rows:
        """Run a query over a server-side cursor, if the text allows that."""
        self._ready()
        text, values = self._read(sql, binds)
        if not text.declarable:
            return super().query(sql, binds)
        self._queries += 1
        rows = CursorRows(self, f"trunkline_{self._queries}", not self.in_transaction())
        self.rows = rows
        rows.begin(text.formatted, values)
        return rows

    def executemany(self, sql: str, rows: Sequence[Sequence[Any] | Mapping[str, Any]]) -> Result:
        """Run one statement for all rows or for none."""
        # A list among the values changes the text, so each row is a statement of its own.
        self._ready()
        if has_lists_for(sql, rows, Dialect.POSTGRES):
            return super().executemany(sql, rows)
        plan = postgres_bulk.bulk(sql)
        given: Any = rows
        self._check_strings(sql)
        if not given:
            return Result(affected=0)
        try:
            return self._write_rows(plan, given)
        except StatementError as error:
            # A column may have changed its type since the server was asked. No row was written.
            if not self._descriptions.forget_stale(error, plan.text):
                raise
            return self._write_rows(plan, given)

    def _write_rows(self, plan: postgres_bulk.Bulk, given: Any) -> Result:
        """Write all rows or none: in a transaction, or behind a savepoint of the open one."""
        inside = self.in_transaction()
        self.run(f"SAVEPOINT {_ROWS}" if inside else "BEGIN")
        try:
            affected = postgres_bulk.write(self, plan, given)
            self.run(f"RELEASE SAVEPOINT {_ROWS}") if inside else self._commit()
        except ConnectionError:
            raise
        except Exception:
            self.run(f"ROLLBACK TO SAVEPOINT {_ROWS}") if inside else self.rollback()
            raise
        return Result(affected=affected)

    def with_cursor(self, work: Callable[[Any], object]) -> None:
        """Let `work` use a cursor of psycopg2."""
        with self.take(self._connection.cursor) as cursor:
            self.take(lambda: work(cursor))

    def check_interrupted(self) -> None:
        """Raise StatementError if an interrupt was asked for between two statements of one call."""
        if self._interrupts is not None and self._interrupts.is_asked:
            raise StatementError("canceling statement due to user request", code=CANCELLED)

    # transactions

    def in_transaction(self) -> bool:
        """Whether a transaction is open.

        The transaction that belongs only to an open query does not count.
        """
        connection = self._connection
        if connection is None or (self.rows is not None and self.rows.own):
            return False
        return connection.get_transaction_status() in _OPEN

    def begin(self) -> None:
        self._ready()
        self.run("BEGIN")

    def begin_as(self, how: str) -> None:
        self._ready()
        self.run(f"BEGIN {how}")

    def commit(self) -> None:
        self._leave_rows()
        self._ready()
        self._commit()

    def _commit(self) -> None:
        """Commit. StatementError if the server rolled back instead."""
        self.run("COMMIT")
        if self._status == "ROLLBACK":
            raise _not_committed()

    def rollback(self) -> None:
        """Roll back. Succeeds also if the server has ended the transaction already."""
        self._leave_rows()
        if self._interrupts is not None:
            self._interrupts.forget()
        if self.in_transaction():
            self.run("ROLLBACK")

    def _leave_rows(self) -> None:
        """Give up the open query, because its transaction ends."""
        if self.rows is not None:
            self.rows.lose()


def _not_committed() -> StatementError:
    text = "nothing was committed: a statement of the transaction had failed, so the server rolled it back"
    return StatementError(text, code="25P02")


def _merge(result: Result, found: Result) -> None:
    """Add the result of one of several statements."""
    if found.columns:
        result.add_set(found.columns, found.values, found.rest)
    if found.affected is not None:
        result.affected = found.affected

"""mysql: MySQL and MariaDB through mysql-connector-python.

Addresses have the form of go-sql-driver.

The module is long because every method reads or changes the state of the one link: its unread
rows, its transaction, whether it is broken.
Code that does not need that state is in the other modules of this folder.
"""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

from mysql.connector import errors

from trunkline.actors.database.binds import arranged, has_lists_for
from trunkline.actors.driver import (
    FIRST_ROWS,
    ExecDriver,
    FatalError,
    Result,
    Rows,
    break_socket,
    hung_up,
    reset_at_close,
)
from trunkline.actors.drivers.mysql import compressed as mysql_compressed
from trunkline.actors.drivers.mysql import zone as mysql_zone
from trunkline.actors.drivers.mysql.errors import (
    INTERRUPTED,
    READ_ONLY,
    TOO_LARGE,
    at_open,
    is_lost,
    refusal,
    why_lost,
)
from trunkline.actors.drivers.mysql.link import agree_charset, ask, dial, kill
from trunkline.actors.drivers.mysql.plan import Charset, Plan, plan_of
from trunkline.actors.drivers.mysql.settings import NO_AUTOCOMMIT, check_settings, sets_transaction
from trunkline.actors.drivers.mysql.template import Template, template_of
from trunkline.actors.drivers.mysql.types import Literal, literals, readers, to_rows
from trunkline.actors.net.servers import time_to_tell
from trunkline.actors.net.tcp_keepalive import keep_alive
from trunkline.deadline import Deadline
from trunkline.errors import ClosedError, DialError, StatementError
from trunkline.sqltext import Dialect

__all__ = ["MysqlDriver"]

_AUTOCOMMIT, _NO_BACKSLASHES = 0x0002, 0x0200
"""Flags of the server's status."""
_COMMIT, _ROLLBACK = "COMMIT AND NO CHAIN NO RELEASE", "ROLLBACK AND NO CHAIN NO RELEASE"
"""These forms end the transaction with any completion_type:
no other transaction begins, and the link stays.
"""
_CHUNK = 100
"""Rows that are read at once when the rows are not wanted."""
_LOAD = re.compile(rb"(?:\s|/\*.*?\*/|--[^\n]*\n|#[^\n]*\n)*LOAD\b", re.IGNORECASE | re.DOTALL)
_UPDATE = re.compile(
    rb"(?:\s|/\*(?!M?!).*?\*/|--[^\n]*\n|#[^\n]*\n)*(?:UPDATE|WITH)\b", re.IGNORECASE | re.DOTALL
)
_UNREAD = "the rows of a query of this transaction are not all read; read them to the end or close the query first"
_SEVERAL = "the text holds several statements; run them one by one, or allow that with multiStatements=true"
_CONFUSED = (
    # Errors of the library, and errors that the library
    # lets through when the arriving bytes make no sense.
    *(errors.Error, OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError),
    *(struct.error, zlib.error),
)


class MysqlDriver(ExecDriver):
    """One link to a MySQL or MariaDB server, in autocommit mode.

    For values see `trunkline.actors.drivers.mysql.types` and docs/mysql.md.

    The driver uses `cmd_query` and `get_rows` of the library, not its cursors.
    The cursors ask the server for a sign of life before each statement, and rewrite texts that
    hold the word `delimiter`.

    Methods are called on one thread, except `interrupt` and `abort` (see `ExecDriver`).
    """

    schemes: ClassVar[tuple[str, ...]] = ("mysql",)
    dialect: ClassVar[str] = "mysql"
    extra: ClassVar[str | None] = "mysql"
    transient: ClassVar[tuple[type[BaseException], ...]] = (OSError, DialError)
    queries_apart: ClassVar[bool] = True
    interrupt_waits: ClassVar[bool] = True

    _connection: Any = None
    _plan: Plan
    _tls: Mapping[str, Any]
    """The TLS arguments that the link was made with."""
    _charset: Charset
    _broken = False
    """The link cannot be used any more."""
    _interrupted = False
    """A KILL QUERY was sent that may still hit the next statement."""
    _status = _AUTOCOMMIT
    """The server's status flags after the last statement."""
    _longest = 0
    """Longest statement in bytes."""
    _sets_next: list[bytes] | None = None
    """The settings of a transaction that has begun and has run no statement yet.
    None after its first statement, and outside of transactions.
    """
    unread: _MysqlRows | None = None
    """Rows that the server has begun to send. The link can do nothing else until they are read."""

    @property
    def peer(self) -> str:
        return self.address.path if self.address.net == "unix" else super().peer

    # opening

    def open(self, deadline: Deadline) -> None:
        # At the debug level the library writes the data of the login into its log.
        logging.getLogger("mysql.connector").setLevel(logging.WARNING)
        mysql_compressed.install()
        self._plan = plan_of(self.address)
        seconds = min(deadline.left() - time_to_tell(deadline), self._plan.connect_s or math.inf)
        limit = None if seconds == math.inf else max(seconds, 0.001)
        try:
            self._connection, self._tls = dial(self._plan, limit)
            self._watch_over()
            self._set_up()
        except (DialError, StatementError):
            self.close()
            raise
        except _CONFUSED as error:
            self._broken = True
            self.close()
            raise at_open(error, self._plan.peer, limit) from None

    def _watch_over(self) -> None:
        """Have the kernel watch over the link.

        The library does not ask for that; Go's driver does.
        """
        fd = self._fileno()
        if fd >= 0 and self.address.net != "unix":
            with suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
                keep_alive(sock)

    def _set_up(self) -> None:
        """Prepare the link: character set, settings of the address, time zone."""
        self._charset = agree_charset(self._connection, self._plan)
        if self._plan.settings:
            self._ask(self._plan.settings)
        packet = int(self._ask("SELECT @@max_allowed_packet")[0][0] or 0)
        self._longest = min(packet, self._plan.longest or packet)
        if not self._status & _AUTOCOMMIT:
            raise FatalError(f"the address sets autocommit=0: {NO_AUTOCOMMIT}")
        plan = self._plan
        zone = mysql_zone.fit(self._ask, plan.peer, plan.loc, plan.time_zone, self.warn)
        self._connection.read_timeout = self._plan.read_s
        self._connection.write_timeout = self._plan.write_s
        self._writers: dict[bool, Literal] = {
            flag: literals(
                self._charset, backslashes=flag, zone=zone, truncate_us=self._plan.truncate_us
            )
            for flag in (True, False)
        }

    def _ask(self, sql: str) -> list[tuple[bytes | None, ...]]:
        """Run a statement of the driver's own. Returns all its rows."""
        rows, self._status = ask(self._connection, sql)
        return rows

    # statements

    @property
    def _live(self) -> Any:
        """The library's connection. ClosedError after `close`."""
        if self._connection is None:
            raise ClosedError(f"the connection to {self.peer} is closed")
        return self._connection

    def execute(self, sql: str, binds: Sequence[Any] | Mapping[str, Any]) -> Result:
        if not isinstance(binds, Mapping):
            sql, binds = arranged(sql, binds, Dialect.MYSQL)
        template = self._checked(sql)
        statement = template.text(binds, self._literal, self._charset.codec)
        if self._sets_next is not None and sets_transaction(sql):
            return self._begin_anew([*self._sets_next, statement])
        return self._run(statement)

    def _checked(self, sql: str) -> Template:
        """The template of a text. StatementError for a text that must not be sent."""
        if self.unread is not None:
            raise StatementError(_UNREAD)
        check_settings(sql, self._charset)
        template = template_of(sql)
        if template.statements > 1 and not self._plan.multi:
            raise StatementError(_SEVERAL)
        if not template.statements or not sql.strip():
            raise StatementError("there is no statement in this text")
        return template

    @property
    def _literal(self) -> Literal:
        """The writer of values that fits the session's sql_mode."""
        return self._writers[not self._status & _NO_BACKSLASHES]

    def _run(self, statement: bytes, keep: bool = True) -> Result:
        """Send a statement and read its answer: all result sets, and the last count.

        `keep`: False drops the rows.
        """
        if len(statement) >= self._longest:
            raise StatementError(
                f"the statement takes {len(statement):,} bytes, and the server takes {self._longest:,}"
                " (max_allowed_packet); send less at once",
                code=TOO_LARGE,
            )
        self._forget_interrupt()
        self._sets_next = None
        result = Result()
        with self._judged(statement):
            for answer in self._answers(statement):
                if "columns" in answer:
                    self._take_rows(answer, result, keep)
                else:
                    self._status = answer["status_flag"]
                    result.affected = answer["affected_rows"]
                    result.matched = _matched(statement, answer.get("info_msg", ""))
                    result.last_id = answer["insert_id"] or result.last_id
                if self.unread is not None:
                    break
        if not self._status & _AUTOCOMMIT:
            with self._judged(b""):
                self._ask("SET autocommit = 1")
            raise StatementError(NO_AUTOCOMMIT)
        return result

    def _answers(self, statement: bytes) -> Iterator[Any]:
        """The answers of the server to a statement, which may have several."""
        if _LOAD.match(statement):
            # Only `cmd_query` sends the file that the statement names.
            return iter((self._live.cmd_query(statement),))
        answers: Iterator[Any] = self._live.cmd_query_iter(statement)
        return answers

    def _take_rows(self, answer: Mapping[str, Any], result: Result, keep: bool) -> None:
        """Read the first rows of a result set.

        The remaining rows stay unread if no other answer follows.
        """
        self._status = answer["eof"]["status_flag"]
        rows = self.unread = _MysqlRows(self, answer["columns"])
        if not keep:
            while rows.fetch(_CHUNK):
                pass
            return
        first = rows.fetch(FIRST_ROWS)
        if self.unread is not None and self._live.have_next_result:
            # More answers follow, so these rows cannot be left for later.
            first = [*first, *rows.fetch_all()]
        result.add_set(rows.columns, first, rows if self.unread is not None else None)

    def fetch(self, count: int) -> tuple[list[tuple[bytes | None, ...]], bool]:
        """The next rows as bytes, and whether the last row is among them. Called by `Rows`."""
        with self._judged(b""):
            try:
                rows, end = self._live.get_rows(count=count, raw=True)
            except BaseException:
                self.unread = None
                raise
        if end is not None:
            self._status = end["status_flag"]
            self.unread = None
        return rows, end is not None

    @contextmanager
    def _judged(self, statement: bytes) -> Iterator[None]:
        """Turn errors of the library into StatementError or ConnectionError."""
        try:
            yield
        except StatementError:
            raise
        except _CONFUSED as error:
            failure = error
        else:
            return
        if not is_lost(failure):
            self._look_again()
            if self._plan.drops_read_only and getattr(failure, "errno", None) in READ_ONLY:
                self._give_up()
            raise refusal(failure)
        self._give_up()
        if _LOAD.match(statement) and isinstance(failure, errors.Error) and failure.errno == -1:
            # An error of the library about the file.
            # The server got nothing and waits for the file in vain, so the link is given up.
            raise refusal(failure)
        raise why_lost(failure)

    def _look_again(self) -> None:
        """Ask for the server's status after an error.

        The error does not tell whether the transaction is over (a deadlock).
        """
        if self._connection.in_transaction:
            try:
                self._status = self._connection.cmd_ping()["status_flag"]
            except _CONFUSED as error:
                self._give_up()
                raise why_lost(error) from None

    def executemany(self, sql: str, rows: Sequence[Sequence[Any] | Mapping[str, Any]]) -> Result:
        """Run one statement for all rows or for none.

        A single batch needs no transaction.
        Several batches run in a transaction, or behind a savepoint of the open transaction.
        """
        if has_lists_for(sql, rows, Dialect.MYSQL):
            return super().executemany(sql, rows)
        template = self._checked(sql)
        if template.statements > 1:
            raise StatementError("executemany takes one statement, and the text holds several")
        batches = template.batches(rows, self._literal, self._charset.codec, self._longest)
        first, second = next(batches, None), next(batches, None)
        if first is None:
            return Result(affected=0)
        if second is None:
            only = self._run(first, keep=False)
            return Result(affected=only.affected, matched=only.matched)
        inside = self.in_transaction()
        self._own("SAVEPOINT trunkline_many" if inside else "START TRANSACTION")
        try:
            results = [self._run(batch, keep=False) for batch in (first, second, *batches)]
            self._own("RELEASE SAVEPOINT trunkline_many" if inside else _COMMIT)
        except ConnectionError:
            raise
        except Exception:
            if self.in_transaction():
                self._own("ROLLBACK TO SAVEPOINT trunkline_many" if inside else _ROLLBACK)
            raise
        return Result(
            affected=_sum(result.affected for result in results),
            matched=_sum(result.matched for result in results),
        )

    # transactions

    def in_transaction(self) -> bool:
        return (
            self._connection is not None
            and not self._broken
            and bool(self._connection.in_transaction)
        )

    def begin(self) -> None:
        self._own("START TRANSACTION")
        self._sets_next = []

    def begin_as(self, how: str) -> None:
        self._own(f"START TRANSACTION {how}")

    def _begin_anew(self, settings: list[bytes]) -> Result:
        """Begin a transaction that has run no statement yet again, with these settings.

        The settings are `SET TRANSACTION ...` statements. The transaction is rolled back first.

        The server takes such settings only before the transaction begins.

        Returns the result of the last setting.
        If a setting is refused, a transaction without the settings has begun.
        """
        self._own(_ROLLBACK)
        try:
            result = [self._run(setting) for setting in settings][-1]
        except StatementError:
            self.begin()
            raise
        self.begin()
        self._sets_next = settings
        return result

    def commit(self) -> None:
        self._leave_rows()
        if not self.in_transaction():
            raise StatementError(
                "there is no transaction to commit: one of its statements ended it (CREATE, ALTER and DROP"
                " commit, a deadlock rolls back)"
            )
        self._own(_COMMIT)

    def rollback(self) -> None:
        """Roll back. Succeeds also if the transaction is over already."""
        self._leave_rows()
        if self.in_transaction():
            self._own(_ROLLBACK)

    def _leave_rows(self) -> None:
        """End the open query, because its transaction ends."""
        if self.unread is not None:
            self.unread.close()

    def _own(self, sql: str) -> None:
        """Run a statement that begins or ends a transaction.

        A ROLLBACK that a late interrupt has stopped is
        repeated, so that no transaction stays open.
        """
        if self.unread is not None:
            raise StatementError(_UNREAD)
        self._forget_interrupt()
        for last in (False, False, True):
            try:
                with self._judged(b""):
                    self._ask(sql)
                return
            except StatementError as error:
                if last or error.code != INTERRUPTED or not sql.startswith("ROLLBACK"):
                    raise

    # Called on other threads.

    def interrupt(self) -> None:
        connection = self._connection
        if connection is not None and not self._broken:
            self._interrupted = True
            with suppress(*_CONFUSED):
                kill(self._plan, self._tls, connection)

    def skip(self) -> None:
        """Read the unwanted rows of a query.

        If there are many, tell the server to stop sending. Called by `Rows`.
        """
        if self.fetch(_CHUNK)[1]:
            return
        inside = self.in_transaction()
        self._interrupted = True
        try:
            kill(self._plan, self._tls, self._live)
        except _CONFUSED as error:
            self._give_up()
            if inside:
                raise why_lost(error) from None
            return
        while not self.fetch(_CHUNK)[1]:
            pass

    def _forget_interrupt(self) -> None:
        """Send a statement that does nothing, for an interrupt that came too late.

        The interrupt would otherwise stop the next statement.
        """
        if self._interrupted:
            self._interrupted = False
            with self._judged(b""):
                try:
                    self._ask("DO 0")
                except errors.Error as error:
                    if error.errno != INTERRUPTED:
                        raise

    def abort(self) -> None:
        number = self._fileno()
        if number >= 0:
            break_socket(number)

    def alive(self) -> bool:
        return not self._broken and not hung_up(self._fileno())

    def _fileno(self) -> int:
        """The file descriptor of the link's socket; -1 without a socket."""
        # The library offers no access to its socket.
        # tests/unit/drivers/mysql fails if these names change.
        sock = getattr(getattr(self._connection, "_socket", None), "sock", None)
        return -1 if sock is None else int(sock.fileno())

    # the end

    def _give_up(self) -> None:
        """End a broken link without sending anything."""
        self._broken = True
        self.unread = None
        if self._connection is not None:
            self._connection.shutdown()

    def close(self) -> None:
        # Without a reset the server would wait until all data on its way is read.
        if self._broken or self.unread is not None:
            reset_at_close(self._fileno())
        connection, self._connection = self._connection, None
        self.unread = None
        if connection is not None:
            with suppress(*_CONFUSED):
                connection.shutdown() if self._broken else connection.close()


def _matched(statement: bytes, info: str) -> int | None:
    """The rows that an UPDATE has found, or None.

    The server sends a text with its answer, in any language.
    The first of its three numbers (matched, changed, warnings) is the count.
    """
    numbers = re.findall(r"\d+", info)
    return int(numbers[0]) if len(numbers) == 3 and _UPDATE.match(statement) else None


def _sum(counts: Iterable[int | None]) -> int | None:
    """The sum of the counts; None if a count is unknown."""
    known = list(counts)
    return None if None in known else sum(count or 0 for count in known)


class _MysqlRows(Rows):
    """Rows that the server has sent, or is sending.

    The link can do nothing else until they are read.
    """

    def __init__(self, driver: MysqlDriver, description: Sequence[Any]) -> None:
        self.columns = [column[0] for column in description]
        self._driver = driver
        self._readers = readers(description, driver._charset.codec, driver._plan.loc)

    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        if self._driver.unread is not self:
            return []
        return to_rows(self._driver.fetch(count)[0], self._readers)

    def fetch_all(self) -> list[Sequence[Any]]:
        """All remaining rows."""
        found: list[Sequence[Any]] = []
        while rows := self.fetch(_CHUNK):
            found += rows
        return found

    def close(self) -> None:
        if self._driver.unread is self:
            # The statement was stopped.
            with suppress(StatementError):
                self._driver.skip()

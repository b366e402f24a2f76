"""mysql: MySQL and MariaDB through mysql-connector-python, addressed as go-sql-driver's users write it.

Long because every method reads or changes the state of the one link: its unread rows, its transaction,
whether it is broken. What knows nothing of that is in the files `mysql_*.py` beside it.
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
"""Whatever completion_type is: no other transaction begins, and the link stays."""
_CHUNK = 100
"""Rows that are read at once where nobody wants them."""
_LOAD = re.compile(rb"(?:\s|/\*.*?\*/|--[^\n]*\n|#[^\n]*\n)*LOAD\b", re.IGNORECASE | re.DOTALL)
_UPDATE = re.compile(
    rb"(?:\s|/\*(?!M?!).*?\*/|--[^\n]*\n|#[^\n]*\n)*(?:UPDATE|WITH)\b", re.IGNORECASE | re.DOTALL
)
_UNREAD = "the rows of a query of this transaction are not all read; read them to the end or close the query first"
_SEVERAL = "the text holds several statements; run them one by one, or allow that with multiStatements=true"
_CONFUSED = (
    # the library, and what it lets through when the bytes that arrive make no sense
    *(errors.Error, OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError),
    *(struct.error, zlib.error),
)


class MysqlDriver(ExecDriver):
    """One link to a MySQL or MariaDB server, in autocommit mode. Values: see `mysql_types` and docs/mysql.md.

    Stands on the library's `cmd_query` and `get_rows`, not on its cursors: those ask the server for a sign of
    life before each statement, and rewrite texts that hold the word `delimiter`.
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
    """The TLS arguments that this link was made with."""
    _charset: Charset
    _broken = False
    _interrupted = False
    _status = _AUTOCOMMIT
    _longest = 0
    _sets_next: list[bytes] | None = None
    """What the transaction that has just begun, and in which nothing was run yet, was to be like; None once
    something was run, and outside of transactions."""
    unread: _MysqlRows | None = None
    """Rows that the server has begun to send."""

    @property
    def peer(self) -> str:
        return self.address.path if self.address.net == "unix" else super().peer

    # opening

    def open(self, deadline: Deadline) -> None:
        # it writes what is sent at a login into its debug log
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
        """The library does not ask the kernel to look after the link, as Go's does."""
        fd = self._fileno()
        if fd >= 0 and self.address.net != "unix":
            with suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
                keep_alive(sock)

    def _set_up(self) -> None:
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
        """A statement of our own, with all its rows."""
        rows, self._status = ask(self._connection, sql)
        return rows

    # statements

    @property
    def _live(self) -> Any:
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
        return self._writers[not self._status & _NO_BACKSLASHES]

    def _run(self, statement: bytes, keep: bool = True) -> Result:
        """Send it, and take its answer: all result sets, and the last count."""
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
        if _LOAD.match(statement):
            # only so does the library know the file that was named
            return iter((self._live.cmd_query(statement),))
        answers: Iterator[Any] = self._live.cmd_query_iter(statement)
        return answers

    def _take_rows(self, answer: Mapping[str, Any], result: Result, keep: bool) -> None:
        self._status = answer["eof"]["status_flag"]
        rows = self.unread = _MysqlRows(self, answer["columns"])
        if not keep:
            while rows.fetch(_CHUNK):
                pass
            return
        first = rows.fetch(FIRST_ROWS)
        if self.unread is not None and self._live.have_next_result:
            # more answers follow, so that these rows cannot be left for later
            first = [*first, *rows.fetch_all()]
        result.add_set(rows.columns, first, rows if self.unread is not None else None)

    def fetch(self, count: int) -> tuple[list[tuple[bytes | None, ...]], bool]:
        """For `Rows`: the next rows as bytes, and whether the last is among them."""
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
        """What the library raises, as StatementError or ConnectionError."""
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
            # of the library about the file: the server got nothing of it, and waits for it in vain
            raise refusal(failure)
        raise why_lost(failure)

    def _look_again(self) -> None:
        """An error says nothing of the transaction, which may be over now (a deadlock): ask."""
        if self._connection.in_transaction:
            try:
                self._status = self._connection.cmd_ping()["status_flag"]
            except _CONFUSED as error:
                self._give_up()
                raise why_lost(error) from None

    def executemany(self, sql: str, rows: Sequence[Sequence[Any] | Mapping[str, Any]]) -> Result:
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
        """Begin the transaction in which nothing was run yet once more, with these settings (`SET TRANSACTION
        ...`), which the server takes before its beginning alone. Returns what the last of them gave; where
        one is refused, a transaction without them has begun."""
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
        self._leave_rows()
        if self.in_transaction():
            self._own(_ROLLBACK)

    def _leave_rows(self) -> None:
        """A query ends with its transaction."""
        if self.unread is not None:
            self.unread.close()

    def _own(self, sql: str) -> None:
        """A statement that begins or ends a transaction. A late interrupt must not keep one open."""
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

    # from other threads

    def interrupt(self) -> None:
        connection = self._connection
        if connection is not None and not self._broken:
            self._interrupted = True
            with suppress(*_CONFUSED):
                kill(self._plan, self._tls, connection)

    def skip(self) -> None:
        """For `Rows`: read what nobody wants; of many rows, the server is told to send no more."""
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
        """An interrupt that came too late for its statement must not hit the next."""
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
        # The library shows its socket nowhere; tests/unit/drivers/mysql watches over these names.
        sock = getattr(getattr(self._connection, "_socket", None), "sock", None)
        return -1 if sock is None else int(sock.fileno())

    # the end

    def _give_up(self) -> None:
        """The link is out of order: end it without a word."""
        self._broken = True
        self.unread = None
        if self._connection is not None:
            self._connection.shutdown()

    def close(self) -> None:
        if self._broken or self.unread is not None:
            reset_at_close(
                self._fileno()
            )  # or the server waits for us to take what it still wants to send
        connection, self._connection = self._connection, None
        self.unread = None
        if connection is not None:
            with suppress(*_CONFUSED):
                connection.shutdown() if self._broken else connection.close()


def _matched(statement: bytes, info: str) -> int | None:
    """The rows that an UPDATE has found: the first of the three numbers (matched, changed, warnings) of the
    text that the server sends with its answer, in whatever language it is set to."""
    numbers = re.findall(r"\d+", info)
    return int(numbers[0]) if len(numbers) == 3 and _UPDATE.match(statement) else None


def _sum(counts: Iterable[int | None]) -> int | None:
    """None where one of them is not known."""
    known = list(counts)
    return None if None in known else sum(count or 0 for count in known)


class _MysqlRows(Rows):
    """Rows that the server has sent, or is sending. The link can do nothing else until they are read."""

    def __init__(self, driver: MysqlDriver, description: Sequence[Any]) -> None:
        self.columns = [column[0] for column in description]
        self._driver = driver
        self._readers = readers(description, driver._charset.codec, driver._plan.loc)

    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        if self._driver.unread is not self:
            return []
        return to_rows(self._driver.fetch(count)[0], self._readers)

    def fetch_all(self) -> list[Sequence[Any]]:
        """All rows that are left."""
        found: list[Sequence[Any]] = []
        while rows := self.fetch(_CHUNK):
            found += rows
        return found

    def close(self) -> None:
        if self._driver.unread is self:
            with suppress(StatementError):  # stopped
                self._driver.skip()

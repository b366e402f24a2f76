"""Trunkline's databases by Python's database API (PEP 249): `connect`, cursors, its exceptions and types.

A connection of this module stands on one of `trunkline.connect`, and any number of them may stand on the same
one, in this process and others. An open transaction has that to itself, everyone else waits; so one
begins with the first statement that is not plainly a read, and not before. docs/dbapi.md tells more.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Unpack

from trunkline.db.cursor import Cursor
from trunkline.db.errors import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,
    translated,
)
from trunkline.db.text import commits, control, only_reads, sets_session
from trunkline.db.types import (
    BINARY,
    DATETIME,
    NUMBER,
    ROWID,
    STRING,
    Binary,
    Date,
    DateFromTicks,
    Time,
    TimeFromTicks,
    Timestamp,
    TimestampFromTicks,
    TypeObject,
)
from trunkline.errors import BrokenError, DeadHandle, StatementError, TrunklineError
from trunkline.frames import without_frames
from trunkline.proxy import connection as links
from trunkline.proxy.dial import connect as dial
from trunkline.proxy.transaction import Transaction

if TYPE_CHECKING:
    from trunkline.address.option_types import Options

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "TypeObject",
    "Warning",
    "apilevel",
    "connect",
    "paramstyle",
    "threadsafety",
]

apilevel = "2.0"
threadsafety = 1
paramstyle = "qmark"

BEGIN_MS = 30_000
"""How long a transaction waits for its turn, and for its end, where no `timeout_ms` was given."""
WITHOUT_TRANSACTIONS = ("clickhouse",)


def connect(
    database: str | int | links.Connection,
    *,
    autocommit: bool = False,
    timeout_ms: float | None = None,
    **options: Unpack[Options],
) -> Connection:
    """A PEP 249 connection.

    `database`: an address, which is dialled; a handle from `fd()`; or a Connection, which it joins as another
    holder and leaves open when it is closed. `autocommit`: every statement by itself, no transactions.
    `timeout_ms`: milliseconds for each statement (None: no limit) and for a transaction's turn (None: 30 s).
    `options`: those of `trunkline.connect`.

    Raises InterfaceError for an address that means nothing and OperationalError when it cannot be opened.
    """
    if timeout_ms is not None and not timeout_ms > 0:
        raise ValueError("timeout_ms is in milliseconds and must be above zero")
    given = database if isinstance(database, links.Connection) else None
    dialled = isinstance(database, str)
    failure: BaseException | None = None
    try:
        link = dial(
            _number(database) if isinstance(database, links.Connection) else database, options
        )
    except TrunklineError as error:
        failure = translated(error, "")
        failure.__cause__ = without_frames(error)
    except BaseException as error:
        failure = without_frames(error)
    del database, options  # see trunkline.frames
    if failure is not None:
        raise failure
    if not link._about.executes:
        text = f"{link._about.peer} is no database; trunkline.dbapi is for databases"
        link.close()
        raise InterfaceError(text)
    connection = Connection(link, autocommit=autocommit, timeout_ms=timeout_ms)
    if given is not None:
        connection._given = weakref.ref(given)
    connection.owns_link = dialled
    return connection


def _number(connection: links.Connection) -> int:
    # None, without an exception, from an object of `Dial`
    handle: int | None = connection.fd()
    if handle is None:
        raise DeadHandle(f"{connection!r} has ended or was closed; dial again")
    return handle


class Connection:
    """What `connect` returns. As `with connection:` it commits at the end of the block, or rolls back when
    the block raises, and stays open. Closed when it is dropped."""

    Warning = Warning
    Error = Error
    InterfaceError = InterfaceError
    DatabaseError = DatabaseError
    DataError = DataError
    OperationalError = OperationalError
    IntegrityError = IntegrityError
    InternalError = InternalError
    ProgrammingError = ProgrammingError
    NotSupportedError = NotSupportedError

    def __init__(
        self, link: links.Connection, *, autocommit: bool, timeout_ms: float | None
    ) -> None:
        self._link = link
        self._timeout_ms = timeout_ms
        self._autocommit = autocommit
        self.begins_with: str | None = None
        """A statement that each transaction begins with, such as `SET TRANSACTION READ ONLY`; then reads
        begin one too."""
        self.owns_link: bool = False
        """It was dialled for this object: nobody shares it."""
        self._transaction: Transaction | None = None
        self._thread = 0
        """The one that had the transaction last."""
        self._pid = os.getpid()
        self._closed = False
        self._streams: weakref.WeakSet[Cursor] = weakref.WeakSet()
        self._given: weakref.ref[links.Connection] | None = None
        """The object that it was made from, whose blocks would keep it waiting."""

    # PEP 249

    def cursor(self, stream: bool = False) -> Cursor:
        """A new cursor. With `stream` the rows of its statements are fetched as they are asked for, in
        bounded memory (see `Connection.query`); without, each statement's rows are fetched whole."""
        self._check()
        return Cursor(self, stream=stream)

    def commit(self) -> None:
        """End the transaction; nothing where none has begun. Whatever it raises, the transaction is over."""
        self._check()
        transaction = self._end()
        if transaction is not None:
            self._call(transaction.commit)

    def rollback(self) -> None:
        """Undo the transaction; nothing where none has begun. NotSupportedError on ClickHouse, which has no
        transactions."""
        self._check()
        if self._link._about.scheme in WITHOUT_TRANSACTIONS:
            raise NotSupportedError(
                f"{self._link._about.scheme} has no transactions: what was written stays"
            )
        transaction = self._end()
        if transaction is not None:
            self._call(transaction.rollback)

    def close(self) -> None:
        """Roll back what is not committed and leave the connection. Idempotent; does not raise for the
        network's sake."""
        if self._closed:
            return
        self._at_home()
        transaction = self._end()
        self._closed = True
        try:
            if transaction is not None:
                with contextlib.suppress(
                    TrunklineError
                ):  # the worker undoes it when its holder leaves
                    transaction.rollback()
        finally:
            self._link.close()

    # beyond PEP 249

    def begin(self) -> None:
        """Begin a transaction now, before the first statement that would: so that reads are in it too.
        ProgrammingError when one is open; OperationalError when its turn does not come in time."""
        self._begin("")

    def _begin(self, how: str) -> None:
        """`how`: the modes behind BEGIN, as the database has them."""
        self._check()
        if self._link._about.scheme in WITHOUT_TRANSACTIONS:
            raise NotSupportedError(f"{self._link._about.scheme} has no transactions")
        if self._transaction is not None:
            raise ProgrammingError("a transaction has begun already; commit or roll it back first")
        self._check_not_held()
        try:
            self._call(self._begun, how)
        except BaseException:
            self._transaction = None
            raise
        self._thread = threading.get_ident()
        with _lock:
            _in_transaction.add(self)
        if self.begins_with is not None:
            self._begin_with(self.begins_with)

    def _begun(self, how: str) -> None:
        try:
            self._transaction = Transaction(self._link, self._timeout_ms or BEGIN_MS, how)
            self._transaction.begin()
        except BrokenError:  # found out by the BEGIN, with which nothing is lost
            self._transaction = Transaction(self._link, self._timeout_ms or BEGIN_MS, how)
            self._transaction.begin()

    def _begin_with(self, sql: str) -> None:
        assert self._transaction is not None
        try:
            self._call(
                self._link._statements.execute, sql, [], self._timeout_ms, self._transaction.token
            )
        except BaseException:
            with contextlib.suppress(Error):
                self.rollback()
            raise

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction has begun; it has the database connection to itself until it ends."""
        return self._transaction is not None and self._pid == os.getpid()

    @property
    def has_transactions(self) -> bool:
        """Whether the database has transactions; ClickHouse has none."""
        return self._link._about.scheme not in WITHOUT_TRANSACTIONS

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def autocommit(self) -> bool:
        """Whether each statement stands by itself. May be set while no transaction is open."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._check()
        if self.in_transaction:
            raise ProgrammingError(
                "a transaction is open; commit or roll it back before setting autocommit"
            )
        self._autocommit = bool(value)

    def __enter__(self) -> Connection:
        self._check()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if self._closed:
            return
        if kind is None:
            self.commit()
        elif self.in_transaction:
            with contextlib.suppress(Error):  # the block's own error is the one to see
                self.rollback()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "in transaction" if self.in_transaction else "open"
        return f"<trunkline.dbapi.Connection {self._link._member.number} {self._link._about.peer} {state}>"

    # for cursors

    def _check(self) -> None:
        if self._closed:
            raise InterfaceError("this connection is closed; connect again")
        self._at_home()

    def _at_home(self) -> None:
        """In a forked child: the transaction and the open rows are the parent's."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._transaction = None
            self._streams.clear()

    def _run(self, work: Callable[..., Any], sql: str, given: Any) -> Any:
        """A statement, in a transaction if it is to be in one. One that would have been the first of a
        transaction and is refused leaves none open: others would wait for nothing."""
        before = self._transaction
        token = self._statement(sql)
        try:
            return self._call(work, sql, given, self._timeout_ms, token)
        except Error as error:
            refused = type(error.__cause__) is StatementError
            if before is None and refused and self._transaction is not None:
                with contextlib.suppress(Error):
                    self.rollback()
            raise

    def _statement(self, sql: str) -> bytes | None:
        """Begin a transaction if this statement is to be in one. Returns its token, None for none."""
        _check_text(sql)
        self._check()
        if self._transaction is not None and self._link._about.scheme == "mysql" and commits(sql):
            self.commit()
        if self._transaction is None:
            if not self._begins(sql):
                self._check_not_held()
                return None
            self.begin()
        assert self._transaction is not None
        self._thread = self._transaction.thread = threading.get_ident()
        return self._transaction.token

    def _begins(self, sql: str) -> bool:
        """Whether this statement, where no transaction is open, is to be the first of one."""
        if self._autocommit or self._link._about.scheme in WITHOUT_TRANSACTIONS:
            return False
        if self._link._about.scheme == "mysql" and commits(sql):
            return False
        if sets_session(sql, self._link._about.scheme):
            return False
        return self.begins_with is not None or not only_reads(sql, self._link._about.scheme)

    def _controlled(self, sql: str) -> bool:
        """`BEGIN`, `COMMIT` and `ROLLBACK` as statements mean this connection's transaction."""
        _check_text(sql)
        found = (
            control(sql, self._link._about.scheme)
            if self._link._about.scheme not in WITHOUT_TRANSACTIONS
            else None
        )
        if found is None:
            return False
        word, how = found
        if word == "begin":
            self._begin(how)
        else:
            {"commit": self.commit, "rollback": self.rollback}[word]()
        return True

    def _check_not_held(self) -> None:
        """A thread that waits for itself would wait for ever."""
        with _lock:
            holders = list(_in_transaction)
        me = (self._link._member.key, threading.get_ident(), os.getpid())
        given = self._given() if self._given is not None else None
        block = given is not None and Transaction.of_thread(given._statements.local) is not None
        if block or any(
            (other._link._member.key, other._thread, other._pid) == me for other in holders
        ):
            raise OperationalError(
                "this thread has a transaction open on the same database connection, by another object, and "
                "would wait for itself; end that one first"
            )

    def _end(self) -> Transaction | None:
        """The transaction that was open; none is from now on, nor are rows."""
        for cursor in list(self._streams):
            cursor._give_up()
        transaction, self._transaction = self._transaction, None
        with _lock:
            _in_transaction.discard(self)
        return transaction

    def _call(self, work: Callable[..., Any], *args: Any) -> Any:
        try:
            return work(*args)
        except TrunklineError as error:
            raise translated(error, self._link._about.scheme) from error
        except (TypeError, ValueError, OverflowError) as error:  # a value that cannot travel
            raise ProgrammingError(str(error)) from error


def _check_text(sql: object) -> None:
    if not isinstance(sql, str):
        raise TypeError(f"a statement is text, not {type(sql).__name__}")


_lock = threading.Lock()
_in_transaction: weakref.WeakSet[Connection] = weakref.WeakSet()

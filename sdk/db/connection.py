"""Trunkline's databases by Python's database API (PEP 249).

A connection of this module uses a connection of `trunkline.connect`.
Several connections of this module may share the same underlying connection,
in one process or several. An open transaction has the underlying connection
to itself, and all other users wait. So a transaction begins only with the
first statement that is not plainly a read. docs/dbapi.md tells more.
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
"""Milliseconds that a transaction waits for its
turn, and for its end, if no `timeout_ms` was given.
"""
WITHOUT_TRANSACTIONS = ("clickhouse",)
"""Schemes of databases that have no transactions."""


def connect(
    database: str | int | links.Connection,
    *,
    autocommit: bool = False,
    timeout_ms: float | None = None,
    **options: Unpack[Options],
) -> Connection:
    """A PEP 249 connection.

    `database`: an address, which is dialled; a handle from `fd()`; or a Connection, which gets a
    further holder and stays open when the returned connection is closed.
    `autocommit`: True runs every statement outside of transactions.
    `timeout_ms`: milliseconds for each statement (None: no limit) and for a transaction's turn
    (None: 30 s).
    `options`: the options of `trunkline.connect`.

    Raises InterfaceError for an address without a meaning, OperationalError if the database
    cannot be opened, and ValueError for a `timeout_ms` that is not above zero.
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
    # The traceback must not keep these variables alive: see trunkline.frames.
    del database, options
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
    """The handle of a connection. DeadHandle if the connection has ended."""
    # `fd` of an object of `Dial` returns None in place of raising.
    handle: int | None = connection.fd()
    if handle is None:
        raise DeadHandle(f"{connection!r} has ended or was closed; dial again")
    return handle


class Connection:
    """The connection that `connect` returns.

    A context manager: `with connection:` commits at the end of the
    block, or rolls back if the block raises. The connection stays open
    after the block. A connection that is no longer referenced is closed.
    """

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
        """A statement that each transaction begins with, such as `SET TRANSACTION READ ONLY`.
        If set, reads begin a transaction, too.
        """
        self.owns_link: bool = False
        """The underlying connection was dialled for this object, so no other object shares it."""
        self._transaction: Transaction | None = None
        self._thread = 0
        """The thread that had the transaction last."""
        self._pid = os.getpid()
        """The process that uses the connection.
        Another number means that this process is a forked child.
        """
        self._closed = False
        self._streams: weakref.WeakSet[Cursor] = weakref.WeakSet()
        """Cursors whose rows are still fetched from the database."""
        self._given: weakref.ref[links.Connection] | None = None
        """The object that was given to `connect`.
        A transaction block of that object would keep this connection waiting.
        """

    # PEP 249

    def cursor(self, stream: bool = False) -> Cursor:
        """A new cursor.

        With `stream` the rows are fetched while they are read, in bounded memory (see
        `Connection.query`). Without `stream` all rows of a statement are fetched at once.
        """
        self._check()
        return Cursor(self, stream=stream)

    def commit(self) -> None:
        """Commit the open transaction.

        Does nothing without a transaction. The transaction is over even if `commit` raises.
        """
        self._check()
        transaction = self._end()
        if transaction is not None:
            self._call(transaction.commit)

    def rollback(self) -> None:
        """Roll back the open transaction.

        Does nothing without a transaction.
        NotSupportedError on ClickHouse, which has no transactions.
        """
        self._check()
        if self._link._about.scheme in WITHOUT_TRANSACTIONS:
            raise NotSupportedError(
                f"{self._link._about.scheme} has no transactions: what was written stays"
            )
        transaction = self._end()
        if transaction is not None:
            self._call(transaction.rollback)

    def close(self) -> None:
        """Roll back the open transaction and leave the underlying connection.

        Idempotent. Raises nothing because of the network.
        """
        if self._closed:
            return
        self._at_home()
        transaction = self._end()
        self._closed = True
        try:
            if transaction is not None:
                # The worker rolls back when the holder leaves, even if this rollback fails.
                with contextlib.suppress(TrunklineError):
                    transaction.rollback()
        finally:
            self._link.close()

    # beyond PEP 249

    def begin(self) -> None:
        """Begin a transaction now, before the first statement that would begin one.

        Reads then belong to the transaction, too.

        ProgrammingError if a transaction is open.
        OperationalError if the turn of the transaction does not come in time.
        """
        self._begin("")

    def _begin(self, how: str) -> None:
        """Begin a transaction. `how`: the modes behind BEGIN, as the database writes them."""
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
        """Wait for the transaction's turn."""
        try:
            self._transaction = Transaction(self._link, self._timeout_ms or BEGIN_MS, how)
            self._transaction.begin()
        except BrokenError:
            # The BEGIN found out that the link is lost. No statement ran yet, so nothing is lost.
            self._transaction = Transaction(self._link, self._timeout_ms or BEGIN_MS, how)
            self._transaction.begin()

    def _begin_with(self, sql: str) -> None:
        """Run the first statement of a transaction.

        The transaction is rolled back if the statement fails.
        """
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
        """Whether a transaction is open. It has the database connection to itself until it ends."""
        return self._transaction is not None and self._pid == os.getpid()

    @property
    def has_transactions(self) -> bool:
        """Whether the database has transactions. ClickHouse has none."""
        return self._link._about.scheme not in WITHOUT_TRANSACTIONS

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def autocommit(self) -> bool:
        """Whether each statement runs outside of transactions.

        May be set while no transaction is open.
        """
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
            # The error of the block is the one that the program must see.
            with contextlib.suppress(Error):
                self.rollback()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "in transaction" if self.in_transaction else "open"
        return f"<trunkline.dbapi.Connection {self._link._member.number} {self._link._about.peer} {state}>"

    # for cursors

    def _check(self) -> None:
        """Raise InterfaceError if the connection is closed."""
        if self._closed:
            raise InterfaceError("this connection is closed; connect again")
        self._at_home()

    def _at_home(self) -> None:
        """In a forked child: forget the transaction and the open rows, which the parent owns."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._transaction = None
            self._streams.clear()

    def _run(self, work: Callable[..., Any], sql: str, given: Any) -> Any:
        """Run a statement, in a transaction if the statement needs one.

        If the statement was to begin the transaction and is refused, the transaction is rolled
        back. Otherwise other programs would wait for a transaction without a statement.
        """
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
        """Begin a transaction if this statement needs one.

        Returns the token of the transaction, or None outside of a transaction.
        """
        _check_text(sql)
        self._check()
        # MySQL commits before such a statement in any case.
        # The COMMIT here ends our transaction, too.
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
        """Whether this statement begins a transaction if no transaction is open."""
        if self._autocommit or self._link._about.scheme in WITHOUT_TRANSACTIONS:
            return False
        if self._link._about.scheme == "mysql" and commits(sql):
            return False
        if sets_session(sql, self._link._about.scheme):
            return False
        return self.begins_with is not None or not only_reads(sql, self._link._about.scheme)

    def _controlled(self, sql: str) -> bool:
        """Carry out `BEGIN`, `COMMIT` or `ROLLBACK` on this connection's transaction.

        Returns False for any other statement.
        """
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
        """Raise OperationalError if this thread has a transaction on the same connection already.

        The thread would wait for itself for ever.
        """
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
        """Take the open transaction, or None, and give up the open rows.

        No transaction is open afterwards.
        """
        for cursor in list(self._streams):
            cursor._give_up()
        transaction, self._transaction = self._transaction, None
        with _lock:
            _in_transaction.discard(self)
        return transaction

    def _call(self, work: Callable[..., Any], *args: Any) -> Any:
        """Call `work`. Trunkline's errors become those of PEP 249."""
        try:
            return work(*args)
        except TrunklineError as error:
            raise translated(error, self._link._about.scheme) from error
        except (TypeError, ValueError, OverflowError) as error:
            # A value that cannot be packed.
            raise ProgrammingError(str(error)) from error


def _check_text(sql: object) -> None:
    if not isinstance(sql, str):
        raise TypeError(f"a statement is text, not {type(sql).__name__}")


_lock = threading.Lock()
_in_transaction: weakref.WeakSet[Connection] = weakref.WeakSet()
"""All connections of this process that have a transaction. Guarded by `_lock`."""

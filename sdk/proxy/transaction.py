"""`with conn.transaction():`, and what else has to be known of transactions."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING

from trunkline.deadline import Deadline
from trunkline.errors import (
    BrokerGone,
    OperationTimeout,
    OutcomeUnknown,
    StatementError,
    TrunklineError,
    Unsupported,
    WorkerDied,
)
from trunkline.proxy.requesting import GRACE_S
from trunkline.proxy.route import NotTaken
from trunkline.wire.envelope import Kind

if TYPE_CHECKING:
    from trunkline.proxy.connection import Connection

__all__ = ["BARE", "OVER", "Transaction"]

END_MS = 2000
"""The end of a transaction may take so long at least, however short the wait for its turn may
be."""
BARE = b""
"""Stands for the transaction that this object opened with a bare BEGIN."""
OVER = "TRANSACTION_OVER"
"""Code of the errors of a transaction's statements after its end."""


class Transaction:
    """What `Connection.transaction()` gives; see there.

    `begin`, `commit` and `rollback` are for who cannot use the block (trunkline.dbapi): they belong
    to no thread, and name their statements' transaction by `token`.

    Whatever interrupts its end (Ctrl-C above all, which Python raises between any two steps), the
    worker is told to roll it back: one that nobody ends would keep the connection from all its
    holders. `_watched` is for the steps before `__exit__` can do anything about it.
    """

    _begun = False

    def __init__(self, connection: Connection, timeout_ms: float, how: str = "") -> None:
        """`how`: modes that stand behind its BEGIN, as the database has them (`IMMEDIATE`, `READ
        ONLY`)."""
        if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, (int, float)):
            kind = type(timeout_ms).__name__
            raise TypeError(f"transaction's timeout_ms is a number of milliseconds, not {kind}")
        if not timeout_ms > 0:
            raise ValueError("transaction's timeout_ms is in milliseconds and must be above zero")
        self._pid = os.getpid()
        self._connection = connection
        self._timeout_ms = timeout_ms
        self._how = how
        self.thread: int = 0
        """The one that used it last."""
        self.token: bytes = os.urandom(8)
        """Names it in the statements that belong to it."""

    def __enter__(self) -> Connection:
        if self.of_thread(self._connection._statements.local) is not None:
            raise Unsupported(
                "this thread has a transaction on the connection already; they do not nest"
            )
        self.begin()
        self._connection._statements.local.transaction = weakref.ref(self)
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        if self._pid != os.getpid():
            return  # a child forked in the block: the transaction is its parent's
        try:
            self._connection._statements.local.transaction = None
            if kind is None:
                self.commit()
                return
            with contextlib.suppress(TrunklineError):  # the block's own error is the one to see
                self.rollback()
        finally:
            self._abandon()

    @staticmethod
    def of_thread(local: threading.local) -> Transaction | None:
        """The transaction whose block this thread is in."""
        entered: weakref.ref[Transaction] | None = getattr(local, "transaction", None)
        found = entered() if entered is not None else None
        inside = found is not None and found._begun and found._pid == os.getpid()
        return found if inside else None

    @staticmethod
    def holds_up(key: bytes) -> bool:
        """Whether this thread has a transaction open on the same database connection by another
        object, so that a statement on the connection with this key would wait for its own
        thread."""
        me = threading.get_ident(), os.getpid()
        found = (entry() for entry in list(_watched.values()))
        return any(
            each is not None
            and (each.thread, each._pid) == me
            and each._connection._member.key == key
            for each in found
        )

    def begin(self) -> None:
        """Wait for the connection and have it exclusively from now on."""
        gone = partial(_dropped, weakref.ref(self._connection), self.token, self._pid)
        _watched[self.token] = weakref.ref(self, gone)
        self._begun = True
        self.thread = threading.get_ident()
        try:
            self._do("begin", self._timeout_ms)
        except BaseException as error:
            # It may have begun, or yet begin, with nobody left to end it.
            self._give_up(error)
            raise

    def commit(self) -> None:
        """StatementError when it was refused, and rolled back; OutcomeUnknown when no answer
        came."""
        try:
            self._do("commit", max(self._timeout_ms, END_MS))
            self._ended()
        except NotTaken as error:
            self._give_up(error)
            text = "this transaction is over: its worker ended before the commit, and it was rolled back"
            raise StatementError(f"{text}; begin it again", code=OVER) from error
        except (WorkerDied, OperationTimeout, BrokerGone) as error:
            self._give_up(error)
            raise OutcomeUnknown(f"the transaction may or may not be committed: {error}") from error
        except StatementError:
            self._ended()
            raise
        finally:
            self._abandon()

    def rollback(self) -> None:
        """Undo it. One that is over already is not an error."""
        try:
            self._do("rollback", max(self._timeout_ms, END_MS))
            self._ended()
        finally:
            self._abandon()

    def _give_up(self, error: BaseException) -> None:
        """Let it be rolled back, and wait for that where the caller has the time. A worker that
        does not answer will hear of it when it can."""
        if isinstance(error, TrunklineError) and not isinstance(error, OperationTimeout):
            with contextlib.suppress(TrunklineError):
                self._do("rollback", END_MS)
                self._ended()
        self._abandon()

    def _abandon(self) -> None:
        """Tell the worker to roll it back, if it may still be open."""
        if self._begun:
            _tell_rollback(self._connection, self.token, self._pid)
            self._ended()

    def _ended(self) -> None:
        self._begun = False
        _watched.pop(self.token, None)

    def _do(self, what: str, limit_ms: float) -> None:
        connection = self._connection
        deadline = Deadline(limit_ms / 1000 + GRACE_S)
        fields = (
            self.token,
            f"{what} {self._how}" if what == "begin" and self._how else what,
            limit_ms,
        )
        if (
            what == "begin"
        ):  # the end of a block is carried out also when nobody waits for it any more
            connection._requests.request_until_taken(
                Kind.TRANSACTION, (*fields, deadline.at - GRACE_S), b"", deadline
            )
            return
        connection._requests.client_now(deadline)
        connection._requests.request(
            Kind.TRANSACTION, connection._member.holder_id, *fields, None, deadline=deadline
        )


_watched: dict[bytes, weakref.ref[Transaction]] = {}
"""Those that have begun, each with what to do when its object is dropped before its end. No
`__del__`: that would run for each of them, and swallow a Ctrl-C that comes just then."""


def _dropped(connection: weakref.ref[Connection], token: bytes, pid: int, _: object) -> None:
    _watched.pop(token, None)
    held = connection()
    if held is not None:  # otherwise its holder has left, which rolls back too
        _tell_rollback(held, token, pid)


def _tell_rollback(connection: Connection, token: bytes, pid: int) -> None:
    if pid == os.getpid():
        member = connection._member
        fields = (member.holder_id, token, "rollback", END_MS, None)
        member.client.tell(member.key, Kind.TRANSACTION, fields)

"""The transactions of database connections: `with conn.transaction():`."""

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
"""The least time in milliseconds for the end of a transaction, however short `timeout_ms` is."""
BARE = b""
"""The token that stands for the transaction begun by a statement (BEGIN) of this object."""
OVER = "TRANSACTION_OVER"
"""The `code` of the errors of a transaction's statements after the transaction has ended."""


class Transaction:
    """The context manager returned by `Connection.transaction()`; see there.

    `begin`, `commit` and `rollback` are for callers that cannot use a `with` block
    (trunkline.dbapi). A transaction of such a caller belongs to no thread. The caller's statements
    name the transaction by `token`.

    An unended transaction would lock all other holders out of the connection. Ctrl-C, which Python
    raises between any two steps, may interrupt the end of a transaction. In every such case the
    worker is told to roll back: by `__exit__`, or, when `__exit__` does not run any more, by the
    entry in `_watched`.
    """

    _begun = False
    """The worker may have this transaction open."""

    def __init__(self, connection: Connection, timeout_ms: float, how: str = "") -> None:
        """`timeout_ms`: milliseconds to wait for the connection. `how`: modes behind the BEGIN, as
        the database names them (`IMMEDIATE`, `READ ONLY`)."""
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
        """The id of the thread that used the transaction last."""
        self.token: bytes = os.urandom(8)
        """Random bytes naming the transaction in its statements."""

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
            with contextlib.suppress(TrunklineError):  # let the block's own error come through
                self.rollback()
        finally:
            self._abandon()

    @staticmethod
    def of_thread(local: threading.local) -> Transaction | None:
        """The transaction whose block this thread is in; None outside of a block."""
        entered: weakref.ref[Transaction] | None = getattr(local, "transaction", None)
        found = entered() if entered is not None else None
        inside = found is not None and found._begun and found._pid == os.getpid()
        return found if inside else None

    @staticmethod
    def holds_up(key: bytes) -> bool:
        """Whether a statement on the connection `key` would wait for the calling thread itself.

        True when the thread has a transaction open on the same connection by another object.
        """
        me = threading.get_ident(), os.getpid()
        found = (entry() for entry in list(_watched.values()))
        return any(
            each is not None
            and (each.thread, each._pid) == me
            and each._connection._member.key == key
            for each in found
        )

    def begin(self) -> None:
        """Wait for the connection, and hold it exclusively from now on. OperationTimeout after
        `timeout_ms`."""
        gone = partial(_dropped, weakref.ref(self._connection), self.token, self._pid)
        _watched[self.token] = weakref.ref(self, gone)
        self._begun = True
        self.thread = threading.get_ident()
        try:
            self._do("begin", self._timeout_ms)
        except BaseException as error:
            # The transaction may have begun at the worker, or may yet begin, and has to be ended.
            self._give_up(error)
            raise

    def commit(self) -> None:
        """Commit and release the connection.

        StatementError when the database refused the commit; the transaction is rolled back then.
        OutcomeUnknown when no answer came.
        """
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
        """Roll back and release the connection. No error when the transaction is over already."""
        try:
            self._do("rollback", max(self._timeout_ms, END_MS))
            self._ended()
        finally:
            self._abandon()

    def _give_up(self, error: BaseException) -> None:
        """Roll back after a failure. Waits for the answer only of a worker that still answers.

        After a timeout or an interrupt, the worker is told without waiting for an answer.
        """
        if isinstance(error, TrunklineError) and not isinstance(error, OperationTimeout):
            with contextlib.suppress(TrunklineError):
                self._do("rollback", END_MS)
                self._ended()
        self._abandon()

    def _abandon(self) -> None:
        """Tell the worker to roll back, if the transaction may still be open. Does not wait."""
        if self._begun:
            _tell_rollback(self._connection, self.token, self._pid)
            self._ended()

    def _ended(self) -> None:
        """Note that the transaction is over."""
        self._begun = False
        _watched.pop(self.token, None)

    def _do(self, what: str, limit_ms: float) -> None:
        """Send "begin", "commit" or "rollback" and wait for the answer."""
        connection = self._connection
        deadline = Deadline(limit_ms / 1000 + GRACE_S)
        fields = (
            self.token,
            f"{what} {self._how}" if what == "begin" and self._how else what,
            limit_ms,
        )
        if what == "begin":
            connection._requests.request_until_taken(
                Kind.TRANSACTION, (*fields, deadline.at - GRACE_S), b"", deadline
            )
            return
        # No deadline for the worker (None): it ends the transaction also after the caller's
        # timeout.
        connection._requests.client_now(deadline)
        connection._requests.request(
            Kind.TRANSACTION, connection._member.holder_id, *fields, None, deadline=deadline
        )


_watched: dict[bytes, weakref.ref[Transaction]] = {}
"""The open transactions, by token. When the garbage collector takes an unended `Transaction`, the
callback of its reference tells the worker to roll back. A `__del__` would run for every
transaction, and Python would swallow a Ctrl-C during a `__del__`."""


def _dropped(connection: weakref.ref[Connection], token: bytes, pid: int, _: object) -> None:
    """Roll back an unended transaction after the garbage collector has taken its object."""
    _watched.pop(token, None)
    held = connection()
    if held is not None:  # otherwise its holder has left, and the worker rolls back for that reason
        _tell_rollback(held, token, pid)


def _tell_rollback(connection: Connection, token: bytes, pid: int) -> None:
    """Queue a message to the worker to roll back. In a forked child does nothing: the parent goes
    on."""
    if pid == os.getpid():
        member = connection._member
        fields = (member.holder_id, token, "rollback", END_MS, None)
        member.client.tell(member.key, Kind.TRANSACTION, fields)

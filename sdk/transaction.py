"""`with conn.transaction():`, and what else has to be known of transactions."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

from trunkline.deadline import Deadline
from trunkline.errors import (
    BrokerGone,
    OperationTimeout,
    OutcomeUnknown,
    TrunklineError,
    Unsupported,
    WorkerDied,
)
from trunkline.wire.envelope import Kind

if TYPE_CHECKING:
    from trunkline.connection import Connection
    from trunkline.executing import Executing

__all__ = ["BARE", "GRACE_S", "OVER", "Transaction"]

GRACE_S = 0.25
"""The worker keeps a deadline; its answer may take so much longer to come."""
ROLLBACK_MS = 2000
BARE = b""
"""Stands for the transaction that this object opened with a bare BEGIN."""
OVER = "TRANSACTION_OVER"
"""Code of the errors of a transaction's statements after its end."""


class Transaction:
    """What `Connection.transaction()` gives; see there.

    `begin`, `commit` and `rollback` are for who cannot use the block (trunkline.dbapi): they belong to no
    thread, and name their statements' transaction by `token`.
    """

    def __init__(self, connection: Executing, timeout_ms: float) -> None:
        self._connection = connection
        self._timeout_ms = timeout_ms
        self.token = secrets.token_bytes(8)
        """Names it in the statements that belong to it."""
        self._pid = os.getpid()

    def __enter__(self) -> Connection:
        if getattr(self._connection._local, "token", None) is not None:
            raise Unsupported("this thread has a transaction on the connection already; they do not nest")
        self.begin()
        self._connection._local.token = self.token
        return self._connection._itself()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        if self._pid != os.getpid():
            return  # a child forked in the block: the transaction is its parent's
        self._connection._local.token = None
        if kind is None:
            self.commit()
            return
        with contextlib.suppress(TrunklineError):  # the block's own error is the one to see
            self.rollback()

    def begin(self) -> None:
        """Wait for the connection and have it exclusively from now on."""
        try:
            self._do("begin")
        except BaseException as error:
            # It may have begun, or yet begin, with nobody left to end it.
            self._give_up(error)
            raise

    def commit(self) -> None:
        """StatementError when it was refused, and rolled back; OutcomeUnknown when no answer came."""
        try:
            self._do("commit")
        except (WorkerDied, OperationTimeout, BrokerGone) as error:
            self._give_up(error)
            raise OutcomeUnknown(f"the transaction may or may not be committed: {error}") from error

    def rollback(self) -> None:
        """Undo it. One that is over already is not an error."""
        self._do("rollback")

    def _give_up(self, error: BaseException) -> None:
        """Let it be rolled back. A worker that does not answer will hear of it when it can; the time that the
        caller has is over."""
        connection = self._connection
        if isinstance(error, OperationTimeout):
            fields = (connection._holder_id, self.token, "rollback", ROLLBACK_MS)
            connection._client.tell(connection._key, Kind.TRANSACTION, fields)
            return
        with contextlib.suppress(TrunklineError):
            self._do("rollback", ROLLBACK_MS)

    def _do(self, what: str, timeout_ms: float | None = None) -> None:
        connection = self._connection
        limit_ms = self._timeout_ms if timeout_ms is None else timeout_ms
        deadline = Deadline(limit_ms / 1000 + GRACE_S)
        fields = (self.token, what, limit_ms)
        if what == "begin":
            connection._ask_database(Kind.TRANSACTION, fields, b"", deadline)
            return
        connection._client_now()
        connection._request(Kind.TRANSACTION, connection._holder_id, *fields, deadline=deadline)

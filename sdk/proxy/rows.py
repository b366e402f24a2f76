"""The rows of `Connection.query`, fetched from the worker batch by batch while the program takes
them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trunkline.deadline import Deadline
from trunkline.errors import ClosedError, TrunklineError
from trunkline.proxy.requesting import GRACE_S
from trunkline.wire import values
from trunkline.wire.envelope import Kind
from trunkline.wire.table import unpack_rows

if TYPE_CHECKING:
    from trunkline.proxy.connection import Connection

__all__ = ["Rows"]

CLOSE_S = 2.0
"""Seconds that `close` waits for the worker."""


class Rows:
    """An iterator over rows, each a list; made by `Connection.query`.

    The worker keeps one batch (about 256 kB) ready, and fetches the next one from the database when
    the first was taken. So neither side ever holds the whole result. Threads may share the
    iterator: each row goes to one of them.

    A program that does not want all rows closes the iterator: as a context manager, with `close()`,
    or by dropping it. The iterator also ends when its connection's object is closed, and with the
    transaction in which it was made.

    Iteration raises, for objects of `Dial` too, because an end without an error would hide rows:
    OperationTimeout when a batch did not come within the query's `timeout`, StatementError when the
    database failed, BrokenError when database or worker were lost, ClosedError after `close()`.
    """

    _number: int | None = None
    """The query's number at the worker; None when the worker has no further rows."""
    _fetched_in_part = False
    """A batch is being fetched. True without a thread that fetches: an exception has interrupted
    that."""

    def __init__(
        self,
        connection: Connection,
        columns: list[str],
        batch: list[list[Any]],
        number: int | None,
        timeout_ms: float | None,
    ) -> None:
        self.columns = columns
        """The names of the columns."""
        self._pid = os.getpid()
        self._connection = connection
        self._batch: Iterator[list[Any]] = iter(batch)
        self._number = number
        self._timeout_ms = timeout_ms
        self._fetching = threading.Lock()
        """Held by the thread that fetches a batch."""
        self._closed = False
        self._error: TrunklineError | None = None

    def __iter__(self) -> Rows:
        return self

    def __next__(self) -> list[Any]:
        while True:
            batch = self._batch
            for row in batch:
                return row
            # Before the lock: a child forked while a thread fetches has the lock locked for ever.
            self._check_process()
            with self._fetching:
                # Another thread may have fetched the next batch while this one waited for the lock.
                if self._batch is batch and not self._fetch():
                    raise StopIteration

    def _check_process(self) -> None:
        """Raise ClosedError in a forked child: the worker's query belongs to the parent."""
        if self._pid != os.getpid() and self._number is not None:
            raise ClosedError(
                "this query is of the process that began it; a forked child begins its own"
            )

    def _fetch(self) -> bool:
        """With `_fetching` held: get the next batch. Returns False when the query has no further
        rows."""
        if self._error is not None:
            raise type(self._error)(str(self._error), code=self._error.code)
        if self._closed:
            raise ClosedError("this query was closed; its other rows are gone, query again")
        if self._number is None:
            return False
        timeout = self._timeout_ms
        deadline = Deadline(None if timeout is None else timeout / 1000 + GRACE_S)
        if self._fetched_in_part:
            raise ClosedError(
                "a batch of this query was lost to an interrupt (Ctrl-C): query again"
            )
        try:
            self._fetched_in_part = True
            answer = self._ask(Kind.FETCH, (self._number, timeout), deadline)
            more, batch = values.unpack(answer[0])
            rows = iter(unpack_rows(batch))
        except TrunklineError as error:
            self._error, self._number = error, None
            raise
        except BaseException:  # Ctrl-C: the worker may have sent the batch already
            self.close()
            raise
        # ALL OR NOTHING, see trunkline.proxy.pocket
        self._batch = rows
        if not more:
            self._number = None
        self._fetched_in_part = False
        return True

    def close(self) -> None:
        """Give up the rows that were not taken. Idempotent, never raises."""
        self._closed = True
        self._batch = iter(())
        number, self._number = self._number, None
        if number is not None and self._pid == os.getpid():
            try:
                with contextlib.suppress(TrunklineError):
                    self._ask(Kind.END_QUERY, (number,), Deadline(CLOSE_S))
            except BaseException:  # Ctrl-C
                self._tell_end(number)
                raise

    def _ask(self, kind: Kind, fields: tuple[Any, ...], deadline: Deadline) -> list[bytes]:
        """Send a request about this query. Not sent again when the worker is lost: its query is
        lost too."""
        connection = self._connection
        return connection._requests.request(
            kind, connection._member.holder_id, *fields, deadline=deadline
        )

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        number = self._number
        if number is not None and self._pid == os.getpid():
            try:
                self._tell_end(number)
            except BaseException:  # a Ctrl-C, which Python prints and drops inside `__del__`
                self._tell_end(number)
                raise

    def _tell_end(self, number: int) -> None:
        """Queue a message to the worker to end the query. Does not wait."""
        member = self._connection._member
        member.client.tell(member.key, Kind.END_QUERY, (member.holder_id, number))

    def __repr__(self) -> str:
        state = "closed" if self._closed else "at its end" if self._number is None else "open"
        return f"<Rows of {len(self.columns)} columns, {state}>"

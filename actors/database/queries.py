"""The open queries of a database connection.

`trunkline.actors.database.query` holds the code of a single query.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from trunkline.actors.database.jobs import AnswerJob, Job
from trunkline.actors.database.line import Waiting
from trunkline.actors.database.link import Link
from trunkline.actors.database.query import Apart, Beside, Outcome
from trunkline.actors.database.redial import Redial
from trunkline.actors.database.thread import DriverThread, call_on_loop
from trunkline.actors.driver import ExecDriver
from trunkline.deadline import Deadline
from trunkline.errors import ClosedError, OperationTimeout, StatementError
from trunkline.wire import values

__all__ = ["Queries"]

MOST_OVER = 1000
"""How many ended queries are remembered, for requests that come late."""
MOST_APART = 16
"""How many links the queries of one connection may have beside the shared link."""
MOST_OPEN = 256
"""How many queries of one connection may be open, of both kinds."""
SPARE_S = 30.0
"""Seconds that the link of an ended query is kept for the next query."""
STOP_S = 2.0
"""Seconds that a query may take to stop before its link is broken."""
OVER = "QUERY_OVER"
"""Code of the error for a fetch from a query that has ended."""

Key = tuple[bytes, int]
"""The holder, and the number that the holder has given the query."""


@dataclass(slots=True, eq=False)
class _InLine:
    """A query that waits for a link of its own."""

    key: Key
    job: Job
    sql: str
    binds: Any


class Queries:
    """The queries of one connection.

    Methods that get a driver are called on the driver thread, all others on the event loop.

    Both threads change `_open`, which has two consequences. A loop walks through a copy of
    `_open`. And a query is taken out by its identity, not by its key, because the event loop may
    rename the holder meanwhile.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: Link,
        thread: DriverThread,
        *,
        answer: AnswerJob,
        enqueue: Callable[[Waiting[Job]], None],
    ) -> None:
        """`link` and `thread` are the shared link and its driver thread.

        `answer` answers a job. `enqueue` puts a job into the line for the shared link.
        """
        self._loop = loop
        self._link = link
        self._thread = thread
        self._answer = answer
        self._enqueue = enqueue
        self._open: dict[Key, Beside | Apart] = {}
        self._over: dict[Key, None] = {}
        """Queries that have been ended, the oldest first."""
        self._spare: ExecDriver | None = None
        """A link whose query has ended, kept for the next query."""
        self._stopping: list[Apart] = []
        """The queries that `stop_all` has stopped."""
        self._is_stopped = False
        """The connection has ended: no link is kept any more."""
        self._line: deque[_InLine] = deque()
        """Queries that wait for a link of their own."""
        self.begun_apart = 0
        """How many queries were to have links of their own.
        Counted on the event loop, like `_rows_apart`.
        """
        # Two counters, because each is written by one
        # thread only: `_rows_beside` by the driver thread.
        self._rows_beside = self._rows_apart = 0

    @property
    def count(self) -> int:
        """How many queries are open."""
        return len(self._open)

    @property
    def rows(self) -> int:
        """How many rows all queries have returned so far."""
        return self._rows_beside + self._rows_apart

    def _take_out(self, query: Beside | Apart) -> None:
        """Forget a query. A query that waits for a link may begin then."""
        for key, each in list(self._open.items()):
            if each is query:
                self._open.pop(key, None)
        if isinstance(query, Apart):
            self._begin_next()

    # on the shared link

    def begin_beside(
        self, driver: ExecDriver, key: Key, token: bytes | None, job: Job, sql: str, binds: Any
    ) -> bytes:
        """Begin a query on the shared link.

        Returns the body of the answer.
        Raises what the driver raises, and StatementError if too many queries are open.
        """
        if len(self._open) >= MOST_OPEN:
            raise StatementError(
                f"{MOST_OPEN} queries are open on this connection; close some of them"
            )
        rows = driver.query(sql, binds)
        query = Beside(token, rows)
        outcome = query.fetch_batch(rows.columns, not token and driver.in_transaction())
        self._rows_beside += outcome.rows
        if outcome.more and not job.is_unwanted:
            # `end_query` may run on the event loop at the same time. `end_query` notes the end in
            # `_over` and then takes the query out of `_open`. This thread puts the query into
            # `_open` and then reads `_over`. So at least one of the two closes the query.
            self._open[key] = query
            if key in self._over and self._open.pop(key, None) is query:
                query.close()
        else:
            query.close()
        return outcome.body

    def _fetch_beside(self, query: Beside, driver: ExecDriver) -> bytes:
        """The body of the next batch. Called on the driver thread."""
        try:
            outcome = query.fetch_batch()
        except Exception:
            self._take_out(query)
            query.close()
            raise
        self._rows_beside += outcome.rows
        if not outcome.more:
            self._take_out(query)
        return outcome.body

    # on links of their own

    def begin_apart(self, key: Key, job: Job, sql: str, binds: Any) -> None:
        """Give a query a link and a thread, and answer `job` when the query has begun.

        If `MOST_APART` queries have links already, the query waits until one of them ends.
        The wait lasts until the deadline at most; without a deadline, for option `timeout`.
        """
        self.begun_apart += 1
        if key in self._over:
            self._answer(job, error=ClosedError("the query was closed before it began"))
            return
        if self._count_apart() < MOST_APART and not self._line:
            self._begin_now(key, job, sql, binds)
            return
        waiting = _InLine(key, job, sql, binds)
        self._line.append(waiting)
        job.timer = self._loop.call_later(job.dials_until.left(), self._expire_in_line, waiting)

    def _count_apart(self) -> int:
        return sum(isinstance(query, Apart) for query in list(self._open.values()))

    def _begin_next(self) -> None:
        """Begin queries that wait for a link, because another query has ended."""
        while self._line and self._count_apart() < MOST_APART:
            waiting = self._line.popleft()
            if waiting.job.timer is not None:
                waiting.job.timer.cancel()
            self._begin_now(waiting.key, waiting.job, waiting.sql, waiting.binds)

    def _expire_in_line(self, waiting: _InLine) -> None:
        """Answer a query that has waited for a link until its deadline."""
        if waiting in self._line:
            self._line.remove(waiting)
            text = (
                f"{MOST_APART} queries are open on this connection, each on its own link, and none of them"
                " ended in the time allowed; close some of them"
            )
            self._answer(waiting.job, error=OperationTimeout(text))

    def _begin_now(self, key: Key, job: Job, sql: str, binds: Any) -> None:
        """Begin a query on the spare link or on a new link."""
        link = self._link
        if link.has_ended:
            self._answer(job, error=link.redial.end_error())
            return
        spare, self._spare = self._spare, None
        redial = Redial(link.address, link.driver_class.transient)
        query = self._open[key] = Apart(spare, link.make_driver, redial, self._keep_link)
        self._limit_wait(query, job)
        query.begin(sql, binds, job.dials_until, self._make_receiver(query, job))

    def _limit_wait(self, query: Apart, job: Job) -> None:
        """Stop the query if the batch for `job` does not come before the job's deadline."""
        left = job.deadline.timeout()
        if left is not None:
            job.timer = self._loop.call_later(left, self._expired, query, job)

    def _expired(self, query: Apart, job: Job) -> None:
        """Stop a query whose batch for `job` did not come by the job's deadline."""
        if not job.is_answered:
            self._take_out(query)
            self._stop(query)
            error = OperationTimeout(
                "the rows did not come in the time allowed; the query was stopped"
            )
            self._answer(job, error=error)

    def _make_receiver(self, query: Apart, job: Job) -> Callable[[Outcome], None]:
        """A callback for an outcome: the event loop answers `job`.

        The callback is called on the query's thread.
        """

        def answer_on_loop(outcome: Outcome) -> None:
            self._rows_apart += outcome.rows
            if not outcome.more:
                self._take_out(query)
            self._answer(job, body=outcome.body, error=outcome.error)

        return partial(call_on_loop, self._loop, answer_on_loop)

    def _keep_link(self, driver: ExecDriver) -> None:
        """Keep the link of a query that has ended in good order. Called on the query's thread."""
        call_on_loop(self._loop, self._take_spare, driver)

    def _take_spare(self, driver: ExecDriver) -> None:
        """Keep a link for the next query, in place of the link kept before."""
        self._drop_spare()
        self._spare = driver
        if self._is_stopped:
            self._drop_spare()
        else:
            self._loop.call_later(SPARE_S, self._drop_if_unused, driver)

    def _drop_if_unused(self, driver: ExecDriver) -> None:
        if self._spare is driver:
            self._drop_spare()

    def _drop_spare(self) -> None:
        """Close the spare link on a new thread, because closing may wait for the server."""
        spare, self._spare = self._spare, None
        if spare is not None:
            close = partial(_close_quietly, spare)
            threading.Thread(target=close, name="trunkline-close", daemon=True).start()

    # both

    def fetch_rows(self, key: Key, job: Job) -> None:
        """Answer with the next batch of a query, in its turn."""
        query = self._open.get(key)
        if query is None:
            text = "this query is over: its transaction or worker has ended, or it was closed; query again"
            self._answer(job, error=StatementError(text, code=OVER))
        elif isinstance(query, Apart):
            self._limit_wait(query, job)
            query.fetch(self._make_receiver(query, job))
        else:
            job.run = partial(self._fetch_beside, query)
            self._enqueue(Waiting(key[0], query.token, job))

    def end_query(self, key: Key, job: Job | None = None) -> None:
        """End a query because its rows are not wanted any more.

        `job` is answered when the query is closed, or about to be closed.
        """
        # This request may overtake the query itself, which comes another way.
        # So the end is noted first.
        self._over[key] = None
        while len(self._over) > MOST_OVER:
            del self._over[next(iter(self._over))]
        query = self._open.pop(key, None)
        if isinstance(query, Beside):
            # Rows on the shared link are closed by the
            # driver thread, like every call of the driver.
            self._thread.put(partial(self._close_beside, query, job))
            return
        if query is not None:
            self._stop(query)
            self._begin_next()
        self._leave_line(lambda waiting: waiting.key == key)
        self._answer_end(job)

    def _leave_line(self, is_ended: Callable[[_InLine], bool]) -> None:
        """Take ended queries that have not begun out of the line, and answer their jobs."""
        for waiting in [each for each in self._line if is_ended(each)]:
            self._line.remove(waiting)
            self._answer(waiting.job, error=ClosedError("the query was closed before it began"))

    def _stop(self, query: Apart) -> None:
        """Tell a query to stop, and break its link if it has not stopped after `STOP_S` seconds."""
        query.end()
        self._loop.call_later(STOP_S, query.abort)

    def _close_beside(self, query: Beside, job: Job | None) -> None:
        """Close a query on the driver thread, then have the event loop answer."""
        query.close()
        call_on_loop(self._loop, self._answer_end, job)

    def _answer_end(self, job: Job | None) -> None:
        if job is not None and job.request_id:
            self._answer(job, body=values.pack(None))

    def end_queries_of(self, holder: bytes) -> None:
        """End the queries of a holder that has left."""
        self._leave_line(lambda waiting: waiting.key[0] == holder)
        for key in [key for key in list(self._open) if key[0] == holder]:
            self.end_query(key)

    def rename_holder(self, old: bytes, new: bytes) -> None:
        """Give a holder its new name."""
        for key, query in list(self._open.items()):
            if key[0] == old and self._open.pop(key, None) is query:
                self._open[new, key[1]] = query
        for waiting in self._line:
            if waiting.key[0] == old:
                waiting.key = new, waiting.key[1]

    def close_beside(self, token: bytes | None = None) -> None:
        """Close queries on the shared link that cannot go on.

        With `token` those of that transaction, which has ended. Without a token all, because the
        link is lost.
        """
        for key, query in list(self._open.items()):
            if isinstance(query, Beside) and token in (None, query.token):
                del self._open[key]
                self._thread.put(query.close)

    def stop_all(self) -> None:
        """Stop all queries with links of their own, because the connection ends.

        Returns at once.
        """
        self._is_stopped = True
        self._leave_line(lambda waiting: True)
        self._stopping = [query for query in list(self._open.values()) if isinstance(query, Apart)]
        for query in self._stopping:
            query.end()
        self._drop_spare()

    def wait_for_stopped(self, seconds: float) -> None:
        """Wait for the threads of the queries that `stop_all` has stopped, `seconds` at most."""
        limit = Deadline(seconds)
        for query in self._stopping:
            query.join(limit.left())


def _close_quietly(driver: ExecDriver) -> None:
    with contextlib.suppress(Exception):
        driver.close()

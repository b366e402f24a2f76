"""The queries of a database connection that are open (see `trunkline.actors.database.query`): who may have
how many, how their rows are asked for, and when they end."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from trunkline.actors.database.line import Waiting
from trunkline.actors.database.query import Apart, Beside, Outcome
from trunkline.actors.database.redial import Redial
from trunkline.deadline import Deadline
from trunkline.errors import ClosedError, OperationTimeout, StatementError
from trunkline.wire import values

if TYPE_CHECKING:
    from trunkline.actors.database.actor import ExecActor
    from trunkline.actors.database.jobs import Job
    from trunkline.actors.driver import ExecDriver

__all__ = ["Queries"]

MOST_OVER = 1000
"""So many queries that have ended are remembered."""
MOST_APART = 16
"""Links of their own that the queries of one connection may have."""
MOST_OPEN = 256
SPARE_S = 30.0
"""How long the link of a query that has ended is kept for the next one."""
STOP_S = 2.0
"""How long a query that was told to stop may take before its link is broken."""
OVER = "QUERY_OVER"

Key = tuple[bytes, int]
"""The holder, and the number that it has given the query."""


@dataclass(slots=True, eq=False)
class _InLine:
    """A query that waits for a link of its own."""

    key: Key
    job: Job
    sql: str
    binds: Any


class Queries:
    """See the module. Its methods are called on the loop, but for those that get the driver.

    Both threads change `_open`, so it is copied to be walked through; and a holder may be renamed meanwhile,
    so what has ended is taken out of it by itself and not by its key.
    """

    def __init__(self, actor: ExecActor) -> None:
        self._actor = actor
        self._open: dict[Key, Beside | Apart] = {}
        self._over: dict[Key, None] = {}
        self._spare: ExecDriver | None = None
        self._stopping: list[Apart] = []
        self._stopped = False
        self._line: deque[_InLine] = deque()
        """Queries that wait for a link of their own."""
        self.begun_apart = 0
        """Counted on the loop, as `_rows_apart` is."""
        self._rows_beside = self._rows_apart = 0

    @property
    def count(self) -> int:
        return len(self._open)

    @property
    def rows(self) -> int:
        """How many they gave so far."""
        return self._rows_beside + self._rows_apart

    def _take_out(self, query: Beside | Apart) -> None:
        for key, each in list(self._open.items()):
            if each is query:
                self._open.pop(key, None)
        if isinstance(query, Apart):
            self._begin_next()

    # on the shared link

    def begin_beside(
        self, driver: ExecDriver, key: Key, token: bytes | None, job: Job, sql: str, binds: Any
    ) -> bytes:
        """On the driver's thread: the answer to QUERY."""
        if len(self._open) >= MOST_OPEN:
            raise StatementError(f"{MOST_OPEN} queries are open on this connection; close some of them")
        rows = driver.query(sql, binds)
        query = Beside(token, rows)
        outcome = query.next(rows.columns, not token and driver.in_transaction())
        self._rows_beside += outcome.rows
        if outcome.more and not job.timed_out:
            self._open[key] = query
            if (
                key in self._over and self._open.pop(key, None) is query
            ):  # in this order, for `end` runs beside
                query.close()
        else:
            query.close()
        return outcome.body

    def _fetch_beside(self, query: Beside, driver: ExecDriver) -> bytes:
        try:
            outcome = query.next()
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
        """Give it a link and a thread, and answer when it has begun. Where `MOST_APART` queries have links
        already, it waits for the end of one of them, within its deadline; without one, for the option
        `timeout`."""
        self.begun_apart += 1
        if key in self._over:
            self._actor.answer(job, error=ClosedError("the query was closed before it began"))
            return
        if self._count_apart() < MOST_APART and not self._line:
            self._begin_now(key, job, sql, binds)
            return
        waiting = _InLine(key, job, sql, binds)
        self._line.append(waiting)
        job.timer = self._actor.worker.loop.call_later(job.dials_until.left(), self._waited, waiting)

    def _count_apart(self) -> int:
        return sum(isinstance(query, Apart) for query in list(self._open.values()))

    def _begin_next(self) -> None:
        """A query has ended: those that wait for a link of their own may begin."""
        while self._line and self._count_apart() < MOST_APART:
            waiting = self._line.popleft()
            if waiting.job.timer is not None:
                waiting.job.timer.cancel()
            self._begin_now(waiting.key, waiting.job, waiting.sql, waiting.binds)

    def _waited(self, waiting: _InLine) -> None:
        """The time of a query that waits for a link is over."""
        if waiting in self._line:
            self._line.remove(waiting)
            text = (
                f"{MOST_APART} queries are open on this connection, each on its own link, and none of them"
                " ended in the time allowed; close some of them"
            )
            self._actor.answer(waiting.job, error=OperationTimeout(text))

    def _begin_now(self, key: Key, job: Job, sql: str, binds: Any) -> None:
        actor = self._actor
        if actor.ended:
            actor.answer(job, error=actor.redial.end_error())
            return
        spare, self._spare = self._spare, None
        redial = Redial(actor.address, actor.driver_class.transient)
        query = self._open[key] = Apart(spare, self._make_driver, redial, self._keep)
        self._await(query, job)
        query.begin(sql, binds, job.dials_until, self._answered(query, job))

    def _make_driver(self) -> ExecDriver:
        driver = self._actor.driver_class(self._actor.address)
        driver.warn = self._actor.warn
        return driver

    def _await(self, query: Apart, job: Job) -> None:
        left = job.deadline.timeout()
        if left is not None:
            job.timer = self._actor.worker.loop.call_later(left, self._expired, query, job)

    def _expired(self, query: Apart, job: Job) -> None:
        if not job.answered:
            self._take_out(query)
            self._stop(query)
            error = OperationTimeout("the rows did not come in the time allowed; the query was stopped")
            self._actor.answer(job, error=error)

    def _answered(self, query: Apart, job: Job) -> Callable[[Outcome], None]:
        def on_the_loop(outcome: Outcome) -> None:
            self._rows_apart += outcome.rows
            if not outcome.more:
                self._take_out(query)
            self._actor.answer(job, body=outcome.body, error=outcome.error)

        return partial(self._to_loop, on_the_loop)

    def _keep(self, driver: ExecDriver) -> None:
        """On the thread of a query that has ended: its link may serve another one."""
        self._to_loop(self._take_spare, driver)

    def _take_spare(self, driver: ExecDriver) -> None:
        self._drop_spare()
        self._spare = driver
        if self._stopped:
            self._drop_spare()
        else:
            self._actor.worker.loop.call_later(SPARE_S, self._unused, driver)

    def _unused(self, driver: ExecDriver) -> None:
        if self._spare is driver:
            self._drop_spare()

    def _drop_spare(self) -> None:
        """Closing may take a word to the server, so it is another thread's."""
        spare, self._spare = self._spare, None
        if spare is not None:
            close = partial(_close_quietly, spare)
            threading.Thread(target=close, name="trunkline-close", daemon=True).start()

    # both

    def fetch(self, key: Key, job: Job) -> None:
        """Answer with the next batch."""
        query = self._open.get(key)
        if query is None:
            text = "this query is over: its transaction or worker has ended, or it was closed; query again"
            self._actor.answer(job, error=StatementError(text, code=OVER))
        elif isinstance(query, Apart):
            self._await(query, job)
            query.fetch(self._answered(query, job))
        else:
            job.run = partial(self._fetch_beside, query)
            self._actor.enqueue(Waiting(key[0], query.token, job))

    def end(self, key: Key, job: Job | None = None) -> None:
        """Nobody wants its rows any more. `job` is answered when it is closed, or about to be."""
        self._over[key] = (
            None  # the word of its end may be faster than the query itself, which comes another way
        )
        while len(self._over) > MOST_OVER:
            del self._over[next(iter(self._over))]
        query = self._open.pop(key, None)
        if isinstance(query, Beside):
            self._actor.put(partial(self._close_beside, query, job))
            return
        if query is not None:
            self._stop(query)
            self._begin_next()
        self._leave_line(lambda waiting: waiting.key == key)
        self._ended(job)

    def _leave_line(self, of_it: Callable[[_InLine], bool]) -> None:
        """Nobody wants these queries any more, and they have not begun."""
        for waiting in [each for each in self._line if of_it(each)]:
            self._line.remove(waiting)
            self._actor.answer(waiting.job, error=ClosedError("the query was closed before it began"))

    def _stop(self, query: Apart) -> None:
        query.end()
        self._actor.worker.loop.call_later(STOP_S, query.abort)

    def _close_beside(self, query: Beside, job: Job | None) -> None:
        query.close()
        self._to_loop(self._ended, job)

    def _ended(self, job: Job | None) -> None:
        if job is not None and job.request_id:
            self._actor.answer(job, body=values.pack(None))

    def leave(self, holder: bytes) -> None:
        """A holder is gone."""
        self._leave_line(lambda waiting: waiting.key[0] == holder)
        for key in [key for key in list(self._open) if key[0] == holder]:
            self.end(key)

    def rename(self, old: bytes, new: bytes) -> None:
        """A holder goes by another name now."""
        for key, query in list(self._open.items()):
            if key[0] == old and self._open.pop(key, None) is query:
                self._open[new, key[1]] = query
        for waiting in self._line:
            if waiting.key[0] == old:
                waiting.key = new, waiting.key[1]

    def forget(self, token: bytes | None = None) -> None:
        """Those on the shared link cannot go on: of this transaction, or all, for the link is lost."""
        for key, query in list(self._open.items()):
            if isinstance(query, Beside) and token in (None, query.token):
                del self._open[key]
                self._actor.put(query.close)

    def stop(self) -> None:
        """The connection ends."""
        self._stopped = True
        self._leave_line(lambda waiting: True)
        self._stopping = [query for query in list(self._open.values()) if isinstance(query, Apart)]
        for query in self._stopping:
            query.end()
        self._drop_spare()

    def join(self, seconds: float) -> None:
        limit = Deadline(seconds)
        for query in self._stopping:
            query.join(limit.left())

    def _to_loop(self, call: Callable[..., None], *given: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._actor.worker.loop.call_soon_threadsafe(call, *given)


def _close_quietly(driver: ExecDriver) -> None:
    with contextlib.suppress(Exception):
        driver.close()

"""One query whose rows are fetched batch by batch (`Connection.query`).

There are two kinds of query:

* `Beside`: the rows come from the shared link, and each request for a batch waits in the line
  like a statement.
* `Apart`: the query has a link and a thread. On the shared link, the open result would keep all
  other statements waiting (`ExecDriver.queries_apart`).

In both cases the program asks for one batch after another.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from trunkline.actors.database.answers import Batches
from trunkline.actors.database.redial import Redial
from trunkline.actors.driver import ExecDriver, Rows
from trunkline.deadline import Deadline
from trunkline.errors import BrokenError, ClosedError, OutcomeUnknown

__all__ = ["Apart", "Beside", "Outcome"]


class Outcome(NamedTuple):
    """The answer to one request for rows."""

    body: bytes = b""
    error: Exception | None = None
    rows: int = 0
    more: bool = False
    """The query has more rows, or may have more."""


class Beside:
    """A query on the shared link. All methods are called on the driver thread."""

    def __init__(self, token: bytes | None, rows: Rows) -> None:
        """`token`: the transaction of the query."""
        self.token = token
        self._batches = Batches(rows)

    def fetch_batch(self, *before: Any) -> Outcome:
        """The next batch, packed behind the values of `before`. Raises what the driver raises."""
        count, body = self._batches.pack_next(*before)
        return Outcome(body, None, count, self._batches.more)

    def close(self) -> None:
        """Give up the remaining rows.

        Raises nothing: the next statement finds out whether the link is lost.
        """
        with contextlib.suppress(Exception):
            self._batches.close()


class Apart:
    """A query on a link of its own.

    The event loop calls `begin`, `fetch` and `end`. The query's thread makes all calls of the
    driver except `interrupt` and `abort`, which end the call that the thread is inside.
    """

    def __init__(
        self,
        spare: ExecDriver | None,
        make: Callable[[], ExecDriver],
        redial: Redial,
        keep: Callable[[ExecDriver], None],
    ) -> None:
        """`spare`: a driver with a free link, or None.

        `make`: returns a new driver that is not open.
        `keep`: takes the driver of a query that has ended in good order.
        """
        self._driver = spare
        self._make = make
        self._redial = redial
        self._keep = keep
        self._orders: queue.SimpleQueue[
            tuple[Callable[[], Outcome], Callable[[Outcome], None]] | None
        ]
        self._orders = queue.SimpleQueue()
        """Work for the query's thread, each with the callback for its outcome.
        None ends the thread.
        """
        self._is_open = spare is not None
        """The driver has a link."""
        self._is_ended = False
        """No more rows are wanted. Written on the event loop."""
        self._is_busy = False
        """The query's thread is inside a call of the driver, or about to be."""
        self._is_interrupted = False
        """The server was told to stop a call, and may stop the next call instead.
        So the link is not kept.
        """
        self._takes_no_orders = False
        """The query's thread does not take orders any more. Written on the query's thread."""
        self._batches: Batches | None = None
        self._ready: Outcome | None = None
        """A batch that was fetched before the program asked for it."""
        self._thread = threading.Thread(target=self._serve, name="trunkline-query", daemon=True)

    def begin(
        self,
        sql: str,
        binds: Sequence[Any] | Mapping[str, Any],
        deadline: Deadline,
        answered: Callable[[Outcome], None],
    ) -> None:
        """Find a link by the deadline and run the query.

        `answered` takes the first batch, on the query's thread.
        """
        self._orders.put((lambda: self._run_query(sql, binds, deadline), answered))
        self._thread.start()

    def fetch(self, answered: Callable[[Outcome], None]) -> None:
        """Have `answered` take the next batch, on the query's thread."""
        self._orders.put((self._fetch_batch, answered))
        # The query's thread sets `_takes_no_orders` before it refuses the orders that are there.
        # An order that comes later sees the flag and is refused here.
        if self._takes_no_orders:
            self._refuse_orders()

    def end(self) -> None:
        """Stop the query, even inside a call.

        Its link is kept for another query or closed. Returns at once.
        """
        self._is_ended = True
        self._redial.stop()
        self._orders.put(None)
        # `_is_ended` is written before `_is_busy` is read, and the query's thread does the
        # reverse. So either the thread does not begin an order, or the order is seen here.
        # An order that still makes its first link has no driver to interrupt.
        driver = self._driver
        if self._is_busy and driver is not None:
            self._is_interrupted = True
            # A new thread, because the interrupt may ask
            # the server and the event loop must not wait.
            threading.Thread(
                target=driver.interrupt, name="trunkline-interrupt", daemon=True
            ).start()

    def abort(self) -> None:
        """Break the link of a query that does not stop.

        Does not wait.
        Called on the event loop, because the query's thread is inside a call of the driver.
        """
        driver = self._driver
        if self._is_busy and driver is not None:
            driver.abort()

    def join(self, seconds: float) -> None:
        """Wait for the end of the query's thread, `seconds` at most."""
        self._thread.join(seconds)

    # on the query's thread

    def _serve(self) -> None:
        """Carry out orders until the rows end or the query is ended.

        The body of the query's thread.
        """
        while (order := self._orders.get()) is not None:
            work, answered = order
            outcome, self._ready = self._ready or self._carry_out(work), None
            answered(outcome)
            if not outcome.more:
                break
            # Fetch the next batch while the program works on the last one.
            self._ready = self._carry_out(self._fetch_batch)
        self._takes_no_orders = True
        self._refuse_orders()
        self._release_link()

    def _refuse_orders(self) -> None:
        """Answer orders that came too late. Called on the query's thread and on the event loop."""
        with contextlib.suppress(queue.Empty):
            while True:
                order = self._orders.get_nowait()
                if order is not None:
                    order[1](Outcome(error=ClosedError("all rows of this query were read")))

    def _carry_out(self, work: Callable[[], Outcome]) -> Outcome:
        """The outcome of one order.

        An error that the order raises becomes the error of the outcome.
        """
        self._is_busy = True
        try:
            if self._is_ended:
                raise ClosedError("the query was closed")
            return work()
        except ConnectionError as error:
            if self._batches is None:
                text = f"the server was lost while the query ran ({error}): it may or may not have taken effect"
                return Outcome(error=OutcomeUnknown(text))
            return Outcome(
                error=BrokenError(f"the server was lost before all rows were read: {error}")
            )
        except Exception as error:
            return Outcome(error=error)
        finally:
            self._is_busy = False

    def _run_query(
        self, sql: str, binds: Sequence[Any] | Mapping[str, Any], deadline: Deadline
    ) -> Outcome:
        """Find a link, run the query and fetch the first batch.

        A kept link that the server has ended is replaced.
        """
        driver = self._driver
        if self._is_open and driver is not None and not driver.alive():
            driver.close()
            self._is_open = False
        if not self._is_open:
            self._redial.dial(self._open_link, deadline, lambda: self._is_ended)
            if self._is_ended:  # Closed during the dial, when there was no statement to interrupt.
                raise ClosedError("the query was closed")
        assert self._driver is not None
        rows = self._driver.query(sql, binds)
        self._batches = Batches(rows)
        count, body = self._batches.pack_next(rows.columns, False)
        return Outcome(body, None, count, self._batches.more)

    def _open_link(self, deadline: Deadline) -> None:
        """Make one attempt at a link, with a new driver."""
        self._driver = self._make()
        self._driver.open(deadline)
        self._is_open = True

    def _fetch_batch(self) -> Outcome:
        assert self._batches is not None
        count, body = self._batches.pack_next()
        return Outcome(body, None, count, self._batches.more)

    def _release_link(self) -> None:
        """Keep the link for the next query if the link is in order; otherwise close it."""
        driver, batches = self._driver, self._batches
        if driver is None:
            return
        self._is_busy = True
        try:
            if batches is not None:
                batches.close()
            if driver.in_transaction():
                driver.rollback()
            if self._is_open and not self._is_interrupted and driver.alive() and driver.reset():
                self._keep(driver)
                return
        except Exception:
            # A link on which this failed is closed below.
            pass
        finally:
            self._is_busy = False
        with contextlib.suppress(Exception):
            driver.close()

"""One query whose rows are fetched batch by batch (`Connection.query`).

A query is either `Beside`: its rows come from the shared link, and each batch waits in the line like a
statement. Or `Apart`: on a link of its own, with a thread of its own, because on the shared link its open
result would keep all other statements waiting (`ExecDriver.queries_apart`). Either way the program asks for
one batch after the other, and at most one batch waits for the program.
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
    """The query has more rows, or may have."""


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
        """Give up the other rows. Raises nothing: the next statement finds out whether the link is lost."""
        with contextlib.suppress(Exception):
            self._batches.close()


class Apart:
    """A query on a link of its own.

    `begin`, `fetch` and `end` are called on the event loop, in this order. Every call of the driver is made
    on the query's thread, but for `interrupt` and `abort`: these end the call that the thread is inside.
    """

    def __init__(
        self,
        spare: ExecDriver | None,
        make: Callable[[], ExecDriver],
        redial: Redial,
        keep: Callable[[ExecDriver], None],
    ) -> None:
        """`spare`: a driver with a link that is free, if there is one. `make`: returns a new driver, not yet
        opened. `keep`: takes the driver of a query that has ended in good order."""
        self._driver = spare
        self._make = make
        self._redial = redial
        self._keep = keep
        self._orders: queue.SimpleQueue[
            tuple[Callable[[], Outcome], Callable[[Outcome], None]] | None
        ]
        self._orders = queue.SimpleQueue()
        self._is_open = spare is not None
        self._is_ended = False
        """Nobody wants more rows. Written on the event loop."""
        self._is_busy = False
        """The thread is inside a call of the driver, or about to be."""
        self._is_interrupted = False
        """The server was told to stop a call, and may yet do that to the next one."""
        self._takes_no_orders = False
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
        """Find a link by the deadline and run the query; `answered` takes the first batch, on the query's
        thread."""
        self._orders.put((lambda: self._run_query(sql, binds, deadline), answered))
        self._thread.start()

    def fetch(self, answered: Callable[[Outcome], None]) -> None:
        """`answered` takes the next batch, on the query's thread."""
        self._orders.put((self._fetch_batch, answered))
        # The thread says that it takes no orders before it refuses those that are there. So an order that
        # came too late for the thread is refused here.
        if self._takes_no_orders:
            self._refuse_orders()

    def end(self) -> None:
        """Stop the query whatever it does; its link is kept for another query or closed. Returns at once."""
        self._is_ended = True
        self._redial.stop()
        self._orders.put(None)
        driver = self._driver
        if self._is_busy and driver is not None:
            self._is_interrupted = True
            # The interrupt may ask the server, for which the event loop cannot wait.
            threading.Thread(
                target=driver.interrupt, name="trunkline-interrupt", daemon=True
            ).start()

    def abort(self) -> None:
        """Break the link of a query that does not react to being stopped. Called on the event loop, for the
        query's thread is inside a call of the driver; does not wait."""
        driver = self._driver
        if self._is_busy and driver is not None:
            driver.abort()

    def join(self, seconds: float) -> None:
        """Wait for the end of the query's thread, `seconds` at most."""
        self._thread.join(seconds)

    # on the query's thread

    def _serve(self) -> None:
        while (order := self._orders.get()) is not None:
            work, answered = order
            outcome, self._ready = self._ready or self._carry_out(work), None
            answered(outcome)
            if not outcome.more:
                break
            self._ready = self._carry_out(
                self._fetch_batch
            )  # While the program works on the batch before.
        self._takes_no_orders = True
        self._refuse_orders()
        self._release_link()

    def _refuse_orders(self) -> None:
        """Answer orders that came too late. On the query's thread or the event loop."""
        with contextlib.suppress(queue.Empty):
            while True:
                order = self._orders.get_nowait()
                if order is not None:
                    order[1](Outcome(error=ClosedError("all rows of this query were read")))

    def _carry_out(self, work: Callable[[], Outcome]) -> Outcome:
        """The outcome of one order; an error that it raises becomes the caller's."""
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
        driver = self._driver
        if self._is_open and driver is not None and not driver.alive():
            driver.close()
            self._is_open = False
        if not self._is_open:
            self._redial.dial(self._open_link, deadline, lambda: self._is_ended)
        assert self._driver is not None
        rows = self._driver.query(sql, binds)
        self._batches = Batches(rows)
        count, body = self._batches.pack_next(rows.columns, False)
        return Outcome(body, None, count, self._batches.more)

    def _open_link(self, deadline: Deadline) -> None:
        """Make one attempt at a link; a driver lives for one."""
        self._driver = self._make()
        self._driver.open(deadline)
        self._is_open = True

    def _fetch_batch(self) -> Outcome:
        assert self._batches is not None
        count, body = self._batches.pack_next()
        return Outcome(body, None, count, self._batches.more)

    def _release_link(self) -> None:
        """Keep the link for the next query, if it is in order, or close it."""
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
            pass  # A link on which this failed is closed.
        finally:
            self._is_busy = False
        with contextlib.suppress(Exception):
            driver.close()

"""One query whose rows are fetched bit by bit (`Connection.query`).

It is either `Beside`: its rows come from the connection that everybody shares, fetched in its turn like a
statement; or `Apart`: on a link of its own, with a thread of its own, because there an open result would keep
everybody else waiting (`ExecDriver.queries_apart`). Either way the program asks for one batch after the
other, and one batch is all that waits for it.
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
    """What became of one request for rows."""

    body: bytes = b""
    error: Exception | None = None
    rows: int = 0
    more: bool = False


class Beside:
    """A query on the shared connection. All of it is called on the driver's thread."""

    def __init__(self, token: bytes | None, rows: Rows) -> None:
        self.token = token
        self._batches = Batches(rows)

    def next(self, *before: Any) -> Outcome:
        count, body = self._batches.packed(*before)
        return Outcome(body, None, count, self._batches.more)

    def close(self) -> None:
        # what is wrong with the link the next statement will find out
        with contextlib.suppress(Exception):
            self._batches.close()


class Apart:
    """A query on a link of its own: `begin`, `fetch` and `end` are called on the loop, in this order."""

    def __init__(
        self,
        spare: ExecDriver | None,
        make: Callable[[], ExecDriver],
        redial: Redial,
        keep: Callable[[ExecDriver], None],
    ) -> None:
        """`spare`: a driver with a link that is free, if there is one. `make`: a new driver, not yet opened.
        `keep`: takes the driver of a query that has ended in good order."""
        self._opened = spare is not None
        self._driver = make() if spare is None else spare
        self._make = make
        self._redial = redial
        self._keep = keep
        self._orders: queue.SimpleQueue[tuple[Callable[[], Outcome], Callable[[Outcome], None]] | None]
        self._orders = queue.SimpleQueue()
        self._ended = self._busy = self._stopped = self._over = False
        self._batches: Batches | None = None
        self._ready: Outcome | None = None
        self._thread = threading.Thread(target=self._serve, name="trunkline-query", daemon=True)

    def begin(
        self,
        sql: str,
        binds: Sequence[Any] | Mapping[str, Any],
        deadline: Deadline,
        answered: Callable[[Outcome], None],
    ) -> None:
        """`answered` is called on the thread of the query."""
        self._orders.put((lambda: self._begin(sql, binds, deadline), answered))
        self._thread.start()

    def fetch(self, answered: Callable[[Outcome], None]) -> None:
        self._orders.put((self._next, answered))
        if self._over:
            self._refuse_orders()

    def end(self) -> None:
        """Stop whatever it does, and give the link back or up. Returns at once."""
        self._ended = True
        self._redial.stop()
        self._orders.put(None)
        if self._busy:
            self._stopped = True
            threading.Thread(target=self._driver.interrupt, name="trunkline-interrupt", daemon=True).start()

    def abort(self) -> None:
        """It does not even react to being stopped."""
        if self._busy:
            self._driver.abort()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    # on its thread

    def _serve(self) -> None:
        while (order := self._orders.get()) is not None:
            work, answered = order
            outcome, self._ready = self._ready or self._carry_out(work), None
            answered(outcome)
            if not outcome.more:
                break
            self._ready = self._carry_out(self._next)  # while the program is busy with what it has
        self._over = True
        self._refuse_orders()
        self._release()

    def _refuse_orders(self) -> None:
        """Answer what came too late; on its thread or the loop."""
        with contextlib.suppress(queue.Empty):
            while True:
                order = self._orders.get_nowait()
                if order is not None:
                    order[1](Outcome(error=ClosedError("all rows of this query were read")))

    def _carry_out(self, work: Callable[[], Outcome]) -> Outcome:
        self._busy = True
        try:
            if self._ended:
                raise ClosedError("the query was closed")
            return work()
        except ConnectionError as error:
            if self._batches is None:
                text = (
                    f"the server was lost while the query ran ({error}): it may or may not have taken effect"
                )
                return Outcome(error=OutcomeUnknown(text))
            return Outcome(error=BrokenError(f"the server was lost before all rows were read: {error}"))
        except Exception as error:
            return Outcome(error=error)
        finally:
            self._busy = False

    def _begin(self, sql: str, binds: Sequence[Any] | Mapping[str, Any], deadline: Deadline) -> Outcome:
        if self._opened and not self._driver.alive():
            self._driver.close()
            self._opened = False
        if not self._opened:
            self._redial.dial(self._open, deadline, lambda: self._ended)
        rows = self._driver.query(sql, binds)
        self._batches = Batches(rows)
        count, body = self._batches.packed(rows.columns, False)
        return Outcome(body, None, count, self._batches.more)

    def _open(self, deadline: Deadline) -> None:
        """One attempt: a driver lives for one."""
        self._driver = self._make()
        self._driver.open(deadline)
        self._opened = True

    def _next(self) -> Outcome:
        assert self._batches is not None
        count, body = self._batches.packed()
        return Outcome(body, None, count, self._batches.more)

    def _release(self) -> None:
        """The link is for the next query, if it is in order: one that was told to stop may yet hear that."""
        driver, batches = self._driver, self._batches
        self._busy = True
        try:
            if batches is not None:
                batches.close()
            if driver.in_transaction():
                driver.rollback()
            if self._opened and not self._stopped and driver.alive() and driver.reset():
                self._keep(driver)
                return
        except Exception:
            pass  # it is closed, then
        finally:
            self._busy = False
        with contextlib.suppress(Exception):
            driver.close()

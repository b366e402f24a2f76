"""The shared link of a database connection: its driver object, and dialling the server again.

The driver thread makes, uses and closes the driver.
Another thread may only interrupt or abort the call that the driver thread is waiting for.
A lock keeps the driver from being closed during the interrupt or abort.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from trunkline.actors.database.admission import explain_transaction_over
from trunkline.actors.database.jobs import Job, LinkLost
from trunkline.actors.database.redial import Redial
from trunkline.actors.driver import ExecDriver
from trunkline.address import Address
from trunkline.deadline import Deadline

__all__ = ["Link"]

BORROWED_S = 2.0
"""Seconds that a lost link stays open for a thread
that asks the server to interrupt a statement there.
"""


class Link:
    """The driver of a connection, while there is a link."""

    def __init__(
        self,
        address: Address,
        driver_class: type[ExecDriver],
        warn: Callable[[str], None],
        tell_outage: Callable[[str], None],
    ) -> None:
        """`warn` writes a line into the user's log, from any thread.

        `tell_outage` does the same with a line about a lost or regained link.
        """
        self.address = address
        self.driver_class = driver_class
        self.driver: ExecDriver | None = None
        """None while there is no link. Written by the driver thread only."""
        self.redial = Redial(address, driver_class.transient, tell_outage)
        self.reconnects = 0
        """How many links were opened after the first. Counted by the driver thread."""
        self.outages = 0
        """How many links were lost. Counted by the driver thread."""
        self._warn = warn
        self._lock = threading.Lock()
        self._is_free = threading.Event()
        """Cleared while another thread has borrowed the driver."""
        self._is_free.set()

    @property
    def has_ended(self) -> bool:
        """Whether the link is gone for good."""
        return self.driver is None and self.redial.over

    def make_driver(self) -> ExecDriver:
        """A new driver that is not open yet. Each driver object makes one attempt at a link."""
        driver = self.driver_class(self.address)
        driver.warn = self._warn
        return driver

    # on the driver thread

    def connect(self, deadline: Deadline) -> None:
        """Open a link by the deadline. Raises what the driver raises."""
        driver = self.make_driver()
        driver.open(deadline)
        self.driver = driver

    def ready_driver(self, job: Job, *, in_block: bool, is_transaction_open: bool) -> ExecDriver:
        """The driver for a job, with a link.

        Dials the server if there is no link.

        A link that the server has ended since the last
        job is noticed here, before the next job is sent.
        `in_block`: the job belongs to a transaction.
        `is_transaction_open`: a transaction has the link.

        Raises LinkLost or StatementError for a job whose transaction was lost with the link.
        Otherwise raises what dialling raises. In all these cases the job has had no effect.
        """
        if self.driver is not None and not self.driver.alive():
            if is_transaction_open:
                raise LinkLost("the server was lost in a transaction")
            self.drop()
        if self.driver is None:
            if in_block:
                raise explain_transaction_over()
            self._dial_again(job)
        assert self.driver is not None
        return self.driver

    def _dial_again(self, job: Job) -> None:
        """Dial until there is a link. BrokenError if the link is gone for good."""
        if self.has_ended:
            raise self.redial.end_error()
        self.redial.dial(self.connect, job.dials_until, lambda: job.is_unwanted)
        self.reconnects += 1

    def drop(self) -> None:
        """Close a link that cannot be used any more. Does nothing without a link."""
        # From here on no other thread finds the driver, so none can borrow it while it closes.
        with self._lock:
            driver, self.driver = self.driver, None
        if driver is None:
            return
        self.outages += 1
        self.redial.link_lost()
        # Another thread may still be asking the server.
        # The driver stays open for that thread, but not without limit.
        self._is_free.wait(BORROWED_S)
        with contextlib.suppress(Exception):
            driver.close()

    def drop_if_lost(self) -> bool:
        """Close a link that the server has ended.

        Returns True if the link existed and is gone now.
        """
        if self.driver is None or self.driver.alive():
            return False
        self.drop()
        return True

    # The methods below are called from other threads, while the driver thread is inside a call of
    # the driver. They must not go into the driver thread's queue: the driver thread would reach
    # them only after the call that they are to end. Calls that do not wait (see `ExecDriver`) are
    # made by the event loop. An `interrupt` that waits has a thread.

    def interrupt(self) -> None:
        """Make the driver's running call end.

        Only for a driver whose `interrupt_waits` is false.
        """
        with self._lock:
            if self.driver is not None:
                self.driver.interrupt()

    def abort(self) -> None:
        """Break the link under the driver's running call, which then raises ConnectionError."""
        with self._lock:
            if self.driver is not None:
                self.driver.abort()

    def borrow_driver(self) -> ExecDriver | None:
        """The driver, for an `interrupt` that waits; None without a link.

        The driver is not closed until `give_back`, or for `BORROWED_S` seconds at most.
        """
        with self._lock:
            if self.driver is not None:
                self._is_free.clear()
            return self.driver

    def give_back(self) -> None:
        """Allow the borrowed driver to be closed again."""
        self._is_free.set()

"""The shared link of a database connection: the driver object that has it, and dialling it again.

The driver thread makes, uses and closes the driver. Another thread may only interrupt or abort what the
driver thread is waiting for, so a lock keeps the driver from being closed meanwhile.
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
"""How long a lost link stays open for a thread that asks the server to interrupt a statement there."""


class Link:
    """The driver of a connection, while there is a link."""

    def __init__(
        self,
        address: Address,
        driver_class: type[ExecDriver],
        warn: Callable[[str], None],
        tell_outage: Callable[[str], None],
    ) -> None:
        """`warn` writes a line into the user's log, from any thread; so does `tell_outage`, for a line about
        a lost or regained link."""
        self.address = address
        self.driver_class = driver_class
        self.driver: ExecDriver | None = None
        """None while there is no link. The driver thread alone writes it."""
        self.redial = Redial(address, driver_class.transient, tell_outage)
        self.reconnects = 0
        """Links after the first; counted by the driver thread."""
        self.outages = 0
        """Links that were lost; counted by the driver thread."""
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
        """A driver that is not open yet: a driver lives for one attempt at a link."""
        driver = self.driver_class(self.address)
        driver.warn = self._warn
        return driver

    # on the driver thread

    def connect(self, deadline: Deadline) -> None:
        """Open a link or raise what the driver raises, by the deadline."""
        driver = self.make_driver()
        driver.open(deadline)
        self.driver = driver

    def ready_driver(self, job: Job, *, in_block: bool, is_transaction_open: bool) -> ExecDriver:
        """The driver for a job, with a link; where there is none, the server is dialled. A link that the
        server has ended since the last job is found out here, before the next one is sent.

        `in_block`: the job belongs to a transaction. `is_transaction_open`: the link is a transaction's.

        Raises LinkLost or StatementError for a job whose transaction went with the link, else what dialling
        raises; the job has had no effect then.
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
        if self.has_ended:
            raise self.redial.end_error()
        self.redial.dial(self.connect, job.dials_until, lambda: job.is_unwanted)
        self.reconnects += 1

    def drop(self) -> None:
        """Close a link that is of no use any more; nothing where there is none."""
        with self._lock:  # From now on no other thread finds the driver.
            driver, self.driver = self.driver, None
        if driver is None:
            return
        self.outages += 1
        self.redial.link_lost()
        self._is_free.wait(BORROWED_S)
        with contextlib.suppress(Exception):
            driver.close()

    def drop_if_lost(self) -> bool:
        """Close a link that the server has ended. True when the link was there and is gone now."""
        if self.driver is None or self.driver.alive():
            return False
        self.drop()
        return True

    # From other threads, while the driver thread is inside a call of the driver. These must not be put into
    # the driver thread's queue: it would come to them only after the call that they are to end. Where they do
    # not wait (see `ExecDriver`), the event loop itself calls them; an `interrupt` that waits has a thread.

    def interrupt(self) -> None:
        """Make the driver's running call end, where `interrupt_waits` is false."""
        with self._lock:
            if self.driver is not None:
                self.driver.interrupt()

    def abort(self) -> None:
        """Break the link under the driver's running call, which then raises ConnectionError."""
        with self._lock:
            if self.driver is not None:
                self.driver.abort()

    def borrow_driver(self) -> ExecDriver | None:
        """The driver, for an `interrupt` that waits; None without a link. Until `give_back` the driver is not
        closed (for `BORROWED_S` seconds at most)."""
        with self._lock:
            if self.driver is not None:
                self._is_free.clear()
            return self.driver

    def give_back(self) -> None:
        """The driver that was borrowed may be closed again."""
        self._is_free.set()

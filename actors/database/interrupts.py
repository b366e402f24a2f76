"""Stopping a statement: at its deadline, or when its caller has left.

Runs on the event loop.

A statement that the driver thread has is stopped in three steps:

1. `is_unwanted` is set. The driver thread does not begin an unwanted job, and stops dialling for
   it.
2. The driver interrupts the running call. An interrupt may arrive a moment before the call
   begins, so the interrupt is repeated until the statement has ended.
3. After `INTERRUPT_S` seconds the caller is told that the outcome is unknown, and the link is
   broken.

An interrupt that asks the server takes a while, so that interrupt has a thread.
Until the interrupt has returned, the end of its statement is held back.
Otherwise the interrupt could stop the next statement.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from trunkline.actors.database.admission import (
    explain_expiry,
    explain_late_rollback,
    explain_not_begun,
)
from trunkline.actors.database.handover import Handover
from trunkline.actors.database.jobs import AnswerJob, Finished, Job
from trunkline.actors.database.line import Expiry, Line, Waiting, decide_expiry
from trunkline.actors.database.link import Link
from trunkline.actors.database.thread import call_on_loop
from trunkline.actors.driver import ExecDriver
from trunkline.errors import OutcomeUnknown

__all__ = ["Interrupts"]

INTERRUPT_S = 2.0
"""Seconds that an interrupted statement may take to end.
After that the caller is answered and the link is broken.
"""
CLOSE_S = 1.0
"""Seconds that an interrupt may take at the end of the connection. The connection waits for the
interrupt because a server may go on with the statement although the client has left.
"""
AGAIN_S = 0.05
"""Seconds before an interrupt is repeated, for a driver whose interrupt does not wait."""
AGAIN_ASKED_S = 0.5
"""Seconds before an interrupt is repeated, for a driver whose interrupt asks the server."""


class Interrupts:
    """Stops the statements of one connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        line: Line[Job],
        link: Link,
        handover: Handover,
        *,
        answer: AnswerJob,
        collect: Callable[[], None],
        finish: Callable[[Finished], None],
    ) -> None:
        """`answer` answers a job.

        `collect` notes an end that the driver thread has left unnoted.
        `finish` takes an end that was held back.
        """
        self._loop = loop
        self._line = line
        self._link = link
        self._handover = handover
        self._answer = answer
        self._collect = collect
        self._finish = finish
        self._is_over = asyncio.Event()
        """Set when the interrupt that is under way has returned."""
        self._held: Finished | None = None
        """The end of the statement whose interrupt has not returned yet."""

    def expire(self, waiting: Waiting[Job]) -> None:
        """Deal with a statement whose deadline has passed.

        The timer of the statement calls this method.
        """
        job = waiting.job
        step = decide_expiry(
            waiting.stage, is_answered=job.is_answered, is_rollback=job.what == "rollback"
        )
        if step is Expiry.IGNORE:
            return
        if step is Expiry.ANSWER:
            self._answer(job, error=explain_late_rollback())
            return
        # The driver thread may take the statement between the decision and the removal.
        # Then `remove` returns False and the statement is treated as taken.
        if step is Expiry.LEAVE and self._line.remove(waiting):
            self._answer(job, error=explain_expiry(in_transaction=self._line.owner is not None))
            return
        # `is_unwanted` is written before `has_begun` is read. The runner does the reverse:
        # `has_begun` first. So at least one thread sees the flag of the other, and a caller who
        # is told "nothing was run" can rely on that.
        was_unwanted, job.is_unwanted = (
            job.is_unwanted,
            True,
        )
        self._link.redial.wake()
        if not job.has_begun:
            redial, has_link = self._link.redial, self._link.driver is not None
            error = explain_not_begun(self._link.address.display, redial.reason, has_link=has_link)
            self._answer(job, error=error)
            return
        job.is_unwanted = was_unwanted
        self.give_up(waiting)

    def give_up(self, waiting: Waiting[Job]) -> None:
        """Stop the running statement, because its caller has left or its deadline has passed."""
        if not waiting.job.is_unwanted:
            waiting.job.is_unwanted = True
            self._link.redial.wake()
            self._loop.call_later(INTERRUPT_S, self._abandon, waiting)
        self._interrupt(waiting)

    def hold_back(self, finished: Finished) -> bool:
        """Keep the end of a statement until its interrupt has returned.

        The end is noted then.

        Returns False if no interrupt is under way.
        """
        if self._handover.is_interrupting:
            self._held = finished
            return True
        return False

    async def end(self) -> None:
        """Stop the running statement, if any, because the connection ends.

        Takes `CLOSE_S` seconds at most.
        """
        if self._handover.running is None:
            return
        with self._handover.lock:
            asked = self._interrupt_driver()
        self._ask_on_a_thread(asked)
        if self._handover.is_interrupting:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._is_over.wait()

    def _interrupt(self, waiting: Waiting[Job]) -> None:
        """Interrupt a statement, and repeat the interrupt until the statement has ended."""
        self._collect()
        asked = None
        # Under the lock the driver thread cannot go on to the
        # next statement, so the interrupt meets this one.
        with self._handover.lock:
            is_running = self._handover.is_running(waiting)
            if is_running and waiting.job.has_begun:
                asked = self._interrupt_driver()
        self._ask_on_a_thread(asked)
        if is_running:
            pause_s = AGAIN_ASKED_S if self._link.driver_class.interrupt_waits else AGAIN_S
            self._loop.call_later(pause_s, self._interrupt, waiting)

    def _interrupt_driver(self) -> ExecDriver | None:
        """Have the driver end its running call.

        The caller holds the lock of the handover.

        Returns the driver if its interrupt may wait and so needs a thread; otherwise None.
        """
        # An interrupt that is under way is enough.
        if self._handover.is_interrupting:
            return None
        if not self._link.driver_class.interrupt_waits:
            # Called on the event loop, although all other calls of the driver run on the driver
            # thread. The driver thread is inside the call that is to end. A driver without
            # `interrupt_waits` promises that its `interrupt` returns at once.
            self._link.interrupt()
            return None
        driver = self._link.borrow_driver()
        if driver is not None:
            self._handover.is_interrupting = True
            self._is_over.clear()
        return driver

    def _ask_on_a_thread(self, driver: ExecDriver | None) -> None:
        """Call the `interrupt` of a borrowed driver on a new thread. Does nothing for None."""
        if driver is not None:
            thread = threading.Thread(
                target=self._ask_server, args=(driver,), name="trunkline-interrupt", daemon=True
            )
            thread.start()

    def _ask_server(self, driver: ExecDriver) -> None:
        """Interrupt, give the driver back, and tell the event loop.

        Runs on a thread made for this call.
        """
        with contextlib.suppress(Exception):
            driver.interrupt()
        self._link.give_back()
        call_on_loop(self._loop, self._note_return)

    def _note_return(self) -> None:
        """Note that the interrupt has returned, so the next statement may begin."""
        self._handover.is_interrupting = False
        self._is_over.set()
        finished, self._held = self._held, None
        if finished is not None:
            self._finish(finished)

    def _abandon(self, waiting: Waiting[Job]) -> None:
        """Answer a statement that the interrupts have not ended, and break its link.

        Does not answer again if the statement has ended meanwhile.
        """
        text = (
            "the statement did not end in time and could not be stopped yet; its outcome is unknown"
        )
        self._answer(waiting.job, error=OutcomeUnknown(text))
        with self._handover.lock:
            if self._handover.is_running(waiting) and not self._handover.is_group:
                # Called on the event loop, because the driver thread is inside the call.
                # `abort` does not wait.
                self._link.abort()

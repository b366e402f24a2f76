"""Stopping a statement: at its deadline, or when its caller has left. Runs on the event loop.

The steps for a statement that the driver thread has:

1. `is_unwanted` is set. The driver thread does not begin an unwanted job, and dials no longer for it.
2. The driver interrupts the running call. An interrupt may come a moment before there is anything to
   interrupt, so it is repeated until the statement has ended.
3. After `INTERRUPT_S` seconds the caller is told that the outcome is unknown, and the link is broken.

An interrupt that asks the server takes a while, so it has a thread of its own. Until it has returned, the end
of its statement is held back: it must not meet the next statement.
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
"""How long an interrupted statement may take to end before its caller is answered anyway, and its link is
broken."""
CLOSE_S = 1.0
"""How long an interrupt that is under way when the connection ends may take: a server may not notice by
itself that its client is gone."""
AGAIN_S = 0.05
"""The pause before an interrupt is repeated."""
AGAIN_ASKED_S = 0.5
"""The same where the server has to be asked."""


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
        """`answer` answers a job. `collect` notes an end that the driver thread has left unnoted. `finish`
        takes an end that was held back."""
        self._loop = loop
        self._line = line
        self._link = link
        self._handover = handover
        self._answer = answer
        self._collect = collect
        self._finish = finish
        self._is_over = asyncio.Event()
        """Set when the interrupt under way has returned."""
        self._held: Finished | None = None

    def expire(self, waiting: Waiting[Job]) -> None:
        """The deadline of a statement has passed."""
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
        if step is Expiry.LEAVE and self._line.remove(waiting):
            self._answer(job, error=explain_expiry(in_transaction=self._line.owner is not None))
            return
        was_unwanted, job.is_unwanted = (
            job.is_unwanted,
            True,
        )  # Before `has_begun` is read: see the runner.
        self._link.redial.wake()
        if not job.has_begun:
            redial, has_link = self._link.redial, self._link.driver is not None
            error = explain_not_begun(self._link.address.display, redial.reason, has_link=has_link)
            self._answer(job, error=error)
            return
        job.is_unwanted = was_unwanted
        self.give_up(waiting)

    def give_up(self, waiting: Waiting[Job]) -> None:
        """Nobody waits for the running statement any more: stop it."""
        if not waiting.job.is_unwanted:
            waiting.job.is_unwanted = True
            self._link.redial.wake()
            self._loop.call_later(INTERRUPT_S, self._abandon, waiting)
        self._interrupt(waiting)

    def hold_back(self, finished: Finished) -> bool:
        """Keep the end of a statement whose interrupt has not returned yet, and note it then. False when
        there is no interrupt under way."""
        if self._handover.is_interrupting:
            self._held = finished
            return True
        return False

    async def end(self) -> None:
        """The connection ends: stop the running statement, if there is one, within `CLOSE_S` seconds."""
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
        """Interrupt a statement, and again until it has ended."""
        self._collect()
        asked = None
        with self._handover.lock:  # The driver thread cannot go on to the next statement meanwhile.
            is_running = self._handover.is_running(waiting)
            if is_running and waiting.job.has_begun:
                asked = self._interrupt_driver()
        self._ask_on_a_thread(asked)
        if is_running:
            pause_s = AGAIN_ASKED_S if self._link.driver_class.interrupt_waits else AGAIN_S
            self._loop.call_later(pause_s, self._interrupt, waiting)

    def _interrupt_driver(self) -> ExecDriver | None:
        """Have the driver end its running call. The caller holds the lock of the handover. Returns the driver
        where it must be asked on a thread of its own."""
        if self._handover.is_interrupting:
            return None
        if not self._link.driver_class.interrupt_waits:
            # On the event loop, although it is a call of the driver: the driver thread is inside the call
            # that is to end, and the driver promises that this one does not wait.
            self._link.interrupt()
            return None
        driver = self._link.borrow_driver()
        if driver is not None:
            self._handover.is_interrupting = True
            self._is_over.clear()
        return driver

    def _ask_on_a_thread(self, driver: ExecDriver | None) -> None:
        """Call the `interrupt` of a borrowed driver where the call may wait; nothing without a driver."""
        if driver is not None:
            thread = threading.Thread(
                target=self._ask_server, args=(driver,), name="trunkline-interrupt", daemon=True
            )
            thread.start()

    def _ask_server(self, driver: ExecDriver) -> None:
        """On a thread of its own."""
        with contextlib.suppress(Exception):
            driver.interrupt()
        self._link.give_back()
        call_on_loop(self._loop, self._note_return)

    def _note_return(self) -> None:
        """The interrupt has returned: the next statement may begin."""
        self._handover.is_interrupting = False
        self._is_over.set()
        finished, self._held = self._held, None
        if finished is not None:
            self._finish(finished)

    def _abandon(self, waiting: Waiting[Job]) -> None:
        """The statement has not ended in spite of the interrupts: answer, and break its link."""
        text = (
            "the statement did not end in time and could not be stopped yet; its outcome is unknown"
        )
        self._answer(waiting.job, error=OutcomeUnknown(text))
        with self._handover.lock:
            if self._handover.is_running(waiting) and not self._handover.is_group:
                self._link.abort()  # From here, for the driver thread is inside the call; does not wait.

"""The statement that the driver thread has, and the ended statement that the event loop has not noted yet.

Both threads change the two under one lock. Usually the event loop gives the driver thread a statement and is
told of its end. Two short cuts spare both threads a wake-up for each statement:

* The driver thread answers a statement itself and leaves the end *unnoted*: the event loop notes the end when
  it has another reason to run (`take_unnoted`). Only where no statement waits in the line, for a waiting
  statement could not begin before.
* The driver thread begins the next statement itself, from the line (`start_following`) or from the client's
  socket (`start_from_client`). Only where the end of the last one changes nothing for the line.

Pure: no thread, clock or driver of its own.
"""

from __future__ import annotations

import threading

from trunkline.actors.database.jobs import Finished, Job
from trunkline.actors.database.line import Line, Waiting

__all__ = ["Handover"]


class Handover:
    """The statement that runs, shared by the event loop and the driver thread."""

    def __init__(self, line: Line[Job]) -> None:
        self._line = line
        self.lock = threading.Lock()
        """Guards all that follows. Taken before the locks of the line and of the link, never after."""
        self.running: Waiting[Job] | None = None
        """The statement that the driver thread has; the first one of a group. It stays here until the event
        loop has noted the end."""
        self.is_group = False
        """The driver thread runs several statements with one commit: the link is not broken because one of
        them is unwanted."""
        self.is_interrupting = False
        """An interrupt is on its way to the running statement. No other statement may begin: the interrupt
        would meet that one."""
        self._unnoted: Finished | None = None

    # on the event loop

    def start(self, waiting: Waiting[Job], *, is_group: bool = False) -> None:
        """Note the statement, or the first of a group, that the driver thread is given now."""
        self.running, self.is_group = waiting, is_group

    def finish(self) -> None:
        """Note that the event loop has noted the end of the running statement."""
        self.running, self.is_group = None, False

    def take_unnoted(self) -> Finished | None:
        """The end that the driver thread left to be noted; None when there is none."""
        with self.lock:
            finished, self._unnoted = self._unnoted, None
        return finished

    def is_running(self, waiting: Waiting[Job]) -> bool:
        """Whether the driver thread has this statement and has not ended it. The caller holds the lock."""
        return self.running is waiting and self._unnoted is None

    def watch_running_client(self) -> None:
        """Give the client socket of the running statement back to the event loop, which then hears when the
        client hangs up."""
        with self.lock:
            running = self.running if self._unnoted is None else None
            # Under the lock: `leave_unnoted` decides by `claimed` which thread reads the socket on.
            if running is not None and running.job.client is not None:
                running.job.client.rearm()

    # on the driver thread

    def leave_unnoted(self, finished: Finished) -> bool:
        """Leave the end of the running statement, which is answered, for the event loop to find. False when
        statements wait in the line: then the event loop must be told."""
        job = finished.waiting.job
        with self.lock:
            if self._line.waiting:
                return False
            # Before the end can be found: who notes the end reads the flag.
            job.keeps_client = job.client is not None and job.client.claimed
            self._unnoted = finished
        return True

    def start_following(self, ended: Job) -> Waiting[Job] | None:
        """Take the next statement from the line in place of the running one, which has `ended` and is
        answered. None where the event loop has to decide who is next."""
        with self.lock:
            if self._line.owner is not None or ended.is_unwanted or self.is_interrupting:
                return None
            found = self._line.take_along(_needs_no_loop, 1)
            if not found:
                return None
            self.running = found[0]
            return found[0]

    def start_from_client(self, waiting: Waiting[Job]) -> bool:
        """Let a statement that the driver thread has read itself be the running one.

        False where the event loop has noted the end of the last statement meanwhile, where statements wait,
        or where a transaction is open."""
        with self.lock:
            if self._unnoted is None or self._line.waiting or self._line.owner is not None:
                return False
            self._unnoted, self.running = None, waiting
        return True


def _needs_no_loop(job: Job) -> bool:
    """Whether the driver thread may begin a waiting job: a plain statement that is not part of a group."""
    return job.what == "exec" and job.joins is None

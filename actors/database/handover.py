"""The running statement, and the ended statement that the event loop has not noted yet.

Both threads change these two under one lock.
Usually the event loop gives a statement to the driver thread and is told when the statement ends.
Two short cuts save a wake-up of each thread for each statement:

* The driver thread answers a statement and leaves the end *unnoted*. The event loop notes the end
  when the event loop runs for another reason (`take_unnoted`). The driver thread does so only
  while the line is empty, because a waiting statement could not begin before the end is noted.
* The driver thread begins the next statement without the event loop: a statement from the line
  (`start_following`) or from the client's socket (`start_from_client`). The driver thread does so
  only if the end of the last statement changes nothing for the line.

Pure: this module has no thread, clock or driver.
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
        """Guards the attributes below. Taken before the locks of the line and of the link, never
        after them: the same order in both threads excludes a deadlock.
        """
        self.running: Waiting[Job] | None = None
        """The statement that the driver thread has, or the first statement of a group.
        Stays set until the event loop has noted the end.
        """
        self.is_group = False
        """The driver thread runs several statements with one commit.
        The link is not broken because one statement of the group is unwanted.
        """
        self.is_interrupting = False
        """An interrupt is on its way to the running statement. No other statement may begin
        meanwhile, because the interrupt would stop that statement instead.
        """
        self._unnoted: Finished | None = None
        """The end of the running statement, answered by the
        driver thread and not noted by the event loop yet.
        """

    # on the event loop

    def start(self, waiting: Waiting[Job], *, is_group: bool = False) -> None:
        """Note the statement that is given to the driver thread now, or the first of a group.

        The driver thread has no statement at that time, so no lock is needed.
        """
        self.running, self.is_group = waiting, is_group

    def finish(self) -> None:
        """Note that the event loop has dealt with the end of the running statement."""
        self.running, self.is_group = None, False

    def take_unnoted(self) -> Finished | None:
        """The end that the driver thread has left unnoted, or None. Returns each end once."""
        with self.lock:
            finished, self._unnoted = self._unnoted, None
        return finished

    def is_running(self, waiting: Waiting[Job]) -> bool:
        """Whether the driver thread has this statement and has not ended it.

        The caller holds the lock.
        """
        return self.running is waiting and self._unnoted is None

    def watch_running_client(self) -> None:
        """Let the event loop read the client socket of the running statement again.

        The event loop then hears when the client hangs up.
        """
        with self.lock:
            running = self.running if self._unnoted is None else None
            # Under the lock, because `leave_unnoted` decides
            # by `claimed` which thread reads the socket next.
            if running is not None and running.job.client is not None:
                running.job.client.rearm()

    # on the driver thread

    def leave_unnoted(self, finished: Finished) -> bool:
        """Leave the end of the running statement, which is answered, for the event loop to find.

        Returns False if statements wait in the line.
        Then the caller must tell the event loop of the end.
        """
        job = finished.waiting.job
        with self.lock:
            if self._line.waiting:
                return False
            # Set the flag before the end can be found: the
            # thread that notes the end reads the flag.
            job.keeps_client = job.client is not None and job.client.claimed
            self._unnoted = finished
        return True

    def start_following(self, ended: Job) -> Waiting[Job] | None:
        """Replace the running statement, which is answered, by the next statement of the line.

        `ended` is the job of the running statement.

        Returns that statement; None if only the event loop can decide which statement comes next.
        """
        with self.lock:
            if self._line.owner is not None or ended.is_unwanted or self.is_interrupting:
                return None
            found = self._line.take_along(_needs_no_loop, 1)
            if not found:
                return None
            self.running = found[0]
            return found[0]

    def start_from_client(self, waiting: Waiting[Job]) -> bool:
        """Make a statement that the driver thread has read from a client the running statement.

        Returns False if the event loop has noted the end of the last statement meanwhile, if
        statements wait in the line, or if a transaction is open.
        """
        with self.lock:
            # An end that is still unnoted proves that the event
            # loop has not started another statement since.
            if self._unnoted is None or self._line.waiting or self._line.owner is not None:
                return False
            self._unnoted, self.running = None, waiting
        return True


def _needs_no_loop(job: Job) -> bool:
    """Whether the driver thread may begin a waiting job.

    Only a plain statement that does not belong to a group needs no event loop.
    """
    return job.what == "exec" and job.joins is None

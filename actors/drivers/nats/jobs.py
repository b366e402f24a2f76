"""Small tasks of a stream's reader: acknowledgements, requests, questions.

nats-py offers these as coroutines that hardly ever wait. No failure may go unseen: a request that
was not made brings no messages, and the reader would wait for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import nats.errors

__all__ = ["Job", "Jobs", "run_all"]

Job = Callable[[], Awaitable[Any]]


class Jobs:
    """The tasks of one reader. `failed` is called with the error of a task that failed."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, *jobs: Job) -> None:
        """Run the jobs soon, in their order. Errors of a lost link count as success."""
        if jobs:
            self.keep(asyncio.ensure_future(run_all(jobs)))

    def keep(self, task: asyncio.Task[None]) -> None:
        """Watch a task that was started already."""
        self._tasks.add(task)
        task.add_done_callback(self._note_done)

    async def wait(self, seconds: float) -> None:
        """Wait until all tasks are done, at most `seconds`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _note_done(self, task: asyncio.Task[None]) -> None:
        """Forget a task that has ended, and report its failure."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)


async def run_all(jobs: Sequence[Job]) -> None:
    """Run the jobs in their order."""
    for job in jobs:
        # The link may be gone. The server then delivers again all messages without an
        # acknowledgement.
        with contextlib.suppress(nats.errors.Error, OSError):
            await job()

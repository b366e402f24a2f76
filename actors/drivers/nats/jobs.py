"""Small tasks of a stream's reader: acknowledgements, requests, questions.

nats-py has them as coroutines, and they hardly ever wait. None of them may fail unseen: a request that was
not made brings no messages, and nothing else would tell.
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
    """The tasks of one reader. `failed` is called with the error of one that failed."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, *jobs: Job) -> None:
        """Run the jobs soon, in this order. The errors of a lost link are no failures."""
        if jobs:
            self.keep(asyncio.ensure_future(run_all(jobs)))

    def keep(self, task: asyncio.Task[None]) -> None:
        """Look after a task that was started already."""
        self._tasks.add(task)
        task.add_done_callback(self._note_done)

    async def wait(self, seconds: float) -> None:
        """Wait until all are done, at most so long."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _note_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)


async def run_all(jobs: Sequence[Job]) -> None:
    """Run the jobs one after the other."""
    for job in jobs:
        # The link is gone, and what was not acknowledged comes again.
        with contextlib.suppress(nats.errors.Error, OSError):
            await job()

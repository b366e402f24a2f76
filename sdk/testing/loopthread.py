"""An asyncio loop in a thread, and waits with a timeout: the base of this package's tools."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["CALL_S", "LoopThread", "News"]

T = TypeVar("T")

CALL_S = 10.0
"""Seconds that a caller waits for the loop's thread before the test fails with "did not answer"."""


class LoopThread:
    """An asyncio loop in a daemon thread.

    Other threads give coroutines to the loop and wait for the results.
    """

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` has closed the loop."""
        return self.loop.is_closed()

    def run(self, job: Callable[[], Coroutine[Any, Any, T]], seconds: float = CALL_S) -> T:
        """Run `job()` on the loop; returns its result or raises its exception.

        AssertionError when the job has not ended after `seconds`; the job is then cancelled.
        RuntimeError after `stop`, and on the loop's own thread: that thread would wait for itself.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                f"{self._thread.name} was called from its own thread and would wait for itself"
            )
        if self.is_stopped:
            raise RuntimeError(f"{self._thread.name} was stopped")
        future = asyncio.run_coroutine_threadsafe(job(), self.loop)
        try:
            return future.result(seconds)
        except TimeoutError:
            # A TimeoutError raised by the job itself is passed on; only our own timeout becomes an
            # AssertionError.
            if future.done():
                raise
            future.cancel()
            raise AssertionError(f"{self._thread.name} did not answer in {seconds} s") from None

    def stop(self) -> None:
        """Cancel all tasks, end the thread and close the loop. Idempotent."""
        if self.is_stopped:
            return
        try:
            self.run(_cancel_tasks)
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(CALL_S)
            self.loop.close()


async def _cancel_tasks() -> None:
    """Cancel all other tasks and wait for their ends."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class News:
    """Wakes waiting threads after a change."""

    def __init__(self) -> None:
        self._changed = threading.Condition()

    def tell(self, change: Callable[[], object] = lambda: None) -> None:
        """Make a change under the lock and wake all waiting threads.

        A waiting thread never sees half of the change.
        """
        with self._changed:
            change()
            self._changed.notify_all()

    def wait(
        self, happened: Callable[[], bool], seconds: float, describe: Callable[[], str]
    ) -> None:
        """Wait until `happened()` is true; AssertionError with the text of `describe()` after
        `seconds`.

        `happened` and `describe` run under the lock, on the waiting thread.
        """
        with self._changed:
            if not self._changed.wait_for(happened, seconds):
                raise AssertionError(describe())

"""What the tools of this package run in: an asyncio loop in a thread of its own, and waits that end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["CALL_S", "LoopThread", "News"]

T = TypeVar("T")

CALL_S = 10.0
"""Seconds that a caller waits for the loop's thread before the test is told that this thread hangs."""


class LoopThread:
    """An asyncio loop in a daemon thread. Other threads give it coroutines and wait for their results."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    @property
    def is_stopped(self) -> bool:
        return self.loop.is_closed()

    def run(self, job: Callable[[], Coroutine[Any, Any, T]], seconds: float = CALL_S) -> T:
        """Run `job()` on the loop; its result, or the exception it raised.

        RuntimeError on the loop's own thread, which would wait for itself, and after `stop`. AssertionError
        when the job has not ended after `seconds`; it is cancelled then.
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
            if future.done():  # the job's own
                raise
            future.cancel()
            raise AssertionError(f"{self._thread.name} did not answer in {seconds} s") from None

    def stop(self) -> None:
        """Cancel the tasks there are, end the thread and close the loop. Idempotent."""
        if self.is_stopped:
            return
        try:
            self.run(_cancel_tasks)
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(CALL_S)
            self.loop.close()


async def _cancel_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class News:
    """Tells waiting threads that something has changed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()

    def tell(self, change: Callable[[], object] = lambda: None) -> None:
        """Make a change that no waiting thread sees half of, and wake them all."""
        with self._changed:
            change()
            self._changed.notify_all()

    def wait(
        self, happened: Callable[[], bool], seconds: float, describe: Callable[[], str]
    ) -> None:
        """Wait until `happened()` is true; AssertionError with `describe()` after so many seconds."""
        with self._changed:
            if not self._changed.wait_for(happened, seconds):
                raise AssertionError(describe())

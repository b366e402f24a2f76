"""Waiting in tests, with a timeout: for a condition, and for threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from trunkline.deadline import Deadline

__all__ = ["Background", "until"]

T = TypeVar("T")
_LOOK_S = 0.005
"""Seconds between two looks at the condition."""


def until(happened: Callable[[], object], what: str = "it", seconds: float = 10.0) -> None:
    """Poll until `happened()` is true; AssertionError with `what` after `seconds`."""
    deadline = Deadline(seconds)
    pause = threading.Event()
    while not happened():
        assert not deadline.expired(), f"{what} did not happen in {seconds} s"
        pause.wait(_LOOK_S)


class Background(Generic[T]):
    """Runs `job` in a thread. `result()` returns the job's value or raises its exception."""

    def __init__(self, job: Callable[[], T]) -> None:
        self._job = job
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value.append(self._job())
        except BaseException as error:
            self._error = error

    def running(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def result(self, seconds: float = 20.0) -> T:
        """Wait for the thread and return its value, or raise its exception; AssertionError after
        `seconds`."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"the thread still runs after {seconds} s"
        if self._error is not None:
            raise self._error
        return self._value[0]

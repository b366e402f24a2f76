"""The right of one thread at a time to use something. An exception of a signal handler cannot leave it taken.

Python calls signal handlers in the main thread between any two steps of a program, and they may raise: Ctrl-C
does. A lock taken by `acquire`, as a wait with an end has to be, would stay taken by an exception that comes
before the next line. A `with` block takes and gives back a lock without such a moment, but has no deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["BUSY", "FOREVER", "Busy", "Turn"]

T = TypeVar("T")


class Busy:
    """The answer of `Turn.run` where the turn could not be had."""


BUSY: Final = Busy()
FOREVER: Final = -1.0


class Turn:
    """See the module. Not for a thread that has it already: a signal handler is refused what the code that it
    has interrupted is doing."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def run(self, timeout_s: float, work: Callable[[], T]) -> T | Busy:
        """What `work` returns, called with the turn; BUSY when it could not be had within `timeout_s` seconds
        (0: without waiting, FOREVER: without an end), or when this very thread has it."""
        lock = self._lock
        owned: Callable[[], bool] = lock._is_owned  # type: ignore[attr-defined]
        if owned():
            return BUSY
        try:
            got = lock.acquire(timeout=timeout_s)
        except BaseException:
            if owned():
                lock.release()
            raise
        if not got:
            return BUSY
        with lock:  # once more, and from here on the way out gives it back
            lock.release()
            return work()

    def is_mine(self) -> bool:
        """Whether this thread has it."""
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]

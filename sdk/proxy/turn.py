"""The right of one thread at a time to use something: a lock that an exception cannot leave locked.

Python calls signal handlers in the main thread, between any two steps of a program, and signal
handlers may raise: Ctrl-C does. `Lock.acquire` with a timeout has a gap: an exception between the
return of `acquire` and the next line leaves the lock locked. A `with` block has no such gap, but
takes no timeout. `Turn` combines the two.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["BUSY", "FOREVER", "Busy", "Turn"]

T = TypeVar("T")


class Busy:
    """The type of `BUSY`, the result of `Turn.run` when the turn could not be had."""


BUSY: Final = Busy()
FOREVER: Final = -1.0
"""The `timeout_s` of a `Turn.run` that waits without a limit."""


class Turn:
    """A lock with a timeout that a signal handler's exception cannot leave locked.

    Not reentrant. A signal handler that asks for the turn while its own thread has it is refused:
    the handler has interrupted the work that the turn protects.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def run(self, timeout_s: float, work: Callable[[], T]) -> T | Busy:
        """Call `work` with the turn held, and return its result.

        `timeout_s`: seconds to wait for the turn (0: do not wait; `FOREVER`: no limit). Returns
        BUSY when the turn could not be had in time, and when this very thread has the turn already.
        """
        lock = self._lock
        owned: Callable[[], bool] = lock._is_owned  # type: ignore[attr-defined]
        if owned():
            return BUSY
        try:
            # An exception may come after the lock is taken and before `got` is assigned.
            got = lock.acquire(timeout=timeout_s)
        except BaseException:
            if owned():
                lock.release()
            raise
        if not got:
            return BUSY
        # The `with` block takes the lock a second time (an RLock may be taken twice), and the line
        # after it gives back the first. From here on the block's end releases the lock, whatever
        # happens.
        with lock:
            lock.release()
            return work()

    def is_mine(self) -> bool:
        """Whether this thread has the turn."""
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]

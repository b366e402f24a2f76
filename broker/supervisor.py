"""When to replace a crashed worker. Pure: time is passed in.

As in Erlang's supervisors, crashes are counted in a sliding window, not in a row. A worker that
crashes now and then for months is replaced each time. A worker that crashes again and again for the
same reason is not.
"""

from __future__ import annotations

import signal
from collections import deque

from trunkline.system.limits import NO_THREAD, memory_limit_mb

__all__ = ["CRASHES", "WINDOW_S", "Crashes", "describe_exit"]

CRASHES = 5
WINDOW_S = 30.0


class Crashes:
    """The crashes of one connection's workers."""

    def __init__(self, limit: int = CRASHES, window_s: float = WINDOW_S) -> None:
        self._limit = limit
        self._window_s = window_s
        self._times: deque[float] = deque()
        self.total = 0

    def may_restart(self, now: float) -> bool:
        """Note a crash at `now` (monotonic seconds). Returns False after too many crashes."""
        self.total += 1
        self._times.append(now)
        while self._times and now - self._times[0] > self._window_s:
            self._times.popleft()
        return len(self._times) <= self._limit

    def wait_s(self) -> float:
        """Seconds to wait before the replacement: none after the first crash, then ever more."""
        return min(2.0, 0.1 * (2 ** (len(self._times) - 1) - 1)) if self._times else 0.0


def describe_exit(status: int | None) -> str:
    """Describe a worker's exit status in words."""
    if status is None:
        return "ended"
    if status < 0:
        # ZeroMQ aborts the process where it may not start its threads
        if status == -signal.SIGABRT:
            return (
                f"was killed by SIGABRT, as where {NO_THREAD}, or where there is too little memory"
            )
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"
    limit = memory_limit_mb()
    memory = (
        "" if limit is None else f", as where {limit} MB of memory are too little (`ulimit -v`)"
    )
    return f"ended with status {status}{memory if status else ''}"

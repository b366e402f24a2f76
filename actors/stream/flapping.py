"""A common pace for links that flap: the reconnects of all workers of one broker together.

A peer that accepts and leaves again at once costs a worker some milliseconds of processor time for each
reconnect. Fifty of them with a short `maxInterval` keep a machine busy, and every other connection waits. So
a link that flaps takes its turn among all that do. The first retries after a link that held are nobody's but
its own: `interval` is kept for them.

The turns are in memory that the zygote's children share. Where workers are interpreters of their own
(`TRUNKLINE_SPAWN=exec`), each paces itself only.
"""

from __future__ import annotations

import mmap
import os
import struct

from trunkline.actors.net.backoff import STABLE_S

__all__ = ["FREE", "MOST_S", "RATE", "Flapping", "Turns"]

FREE = 3
"""So many links in a row may live shorter than `STABLE_S` before the next one takes a turn."""
RATE = 10.0
"""Turns a second for each processor."""
MOST_S = 30.0
"""The longest wait for a turn; a later one in the memory was written by nobody of ours."""
_NEXT = struct.Struct("=d")


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Turns:
    """When the next turn is. Without a lock: two that look at the same moment get the same one, which does no
    harm, and nobody can hold up the others."""

    def __init__(self, rate: float) -> None:
        self._every_s = 1 / rate
        self._memory = mmap.mmap(-1, _NEXT.size)

    def reserve(self, now: float) -> float:
        """How many seconds from `now` (the machine's monotonic clock) until the caller's turn."""
        (free_at,) = _NEXT.unpack_from(self._memory)
        if not now < free_at <= now + MOST_S:
            free_at = now if free_at <= now else now + MOST_S
        _NEXT.pack_into(self._memory, 0, free_at + self._every_s)
        return float(free_at - now)


_TURNS = Turns(RATE * _processors())
"""Made when the zygote imports this, before it forks workers."""


class Flapping:
    """Whether one connection's link flaps."""

    def __init__(self, turns: Turns = _TURNS) -> None:
        self._turns = turns
        self._short = 0

    def link_lasted(self, seconds: float) -> None:
        """Tell how long the link that was just lost had been up."""
        self._short = self._short + 1 if seconds < STABLE_S else 0

    def wait(self, now: float) -> float:
        """Seconds until this connection may dial, after the wait that its options ask for."""
        return self._turns.reserve(now) if self._short > FREE else 0.0

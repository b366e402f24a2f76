"""A common pace for the reconnects of flapping links, over all workers of one broker.

A peer that accepts a link and closes it at once costs a worker some milliseconds of processor time
for each reconnect. Fifty such links with a short `maxInterval` keep a machine busy, and all other
connections wait. So a flapping link takes a turn among all flapping links. The first retries after
a link that held need no turn: they follow option `interval` alone.

The next turn stands in memory that all children of the zygote share. Where workers are interpreters
of their own (`TRUNKLINE_SPAWN=exec`), each worker has turns of its own.
"""

from __future__ import annotations

import mmap
import os
import struct

from trunkline.actors.net.backoff import STABLE_S

__all__ = ["FREE", "MOST_S", "RATE", "Flapping", "Turns"]

FREE = 3
"""Links in a row that may live shorter than `STABLE_S` before a reconnect takes a turn."""
RATE = 10.0
"""Turns per second for each processor."""
MOST_S = 30.0
"""The longest wait for a turn, in seconds. A later time in the shared memory is cut to `MOST_S`."""
_NEXT = struct.Struct("=d")


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Turns:
    """The time of the next free turn, in memory that forked processes share.

    There is no lock. In a race two workers get the same turn, which does no harm. A lock could be
    left behind by a killed worker and would hold up the others."""

    def __init__(self, rate: float) -> None:
        self._every_s = 1 / rate
        self._memory = mmap.mmap(-1, _NEXT.size)

    def reserve(self, now: float) -> float:
        """Seconds from `now` (monotonic clock of the machine) until the caller's turn."""
        (free_at,) = _NEXT.unpack_from(self._memory)
        if not now < free_at <= now + MOST_S:
            free_at = now if free_at <= now else now + MOST_S
        _NEXT.pack_into(self._memory, 0, free_at + self._every_s)
        return float(free_at - now)


_TURNS = Turns(RATE * _processors())
"""Made when the zygote imports this module, so all forked workers share the memory."""


class Flapping:
    """Whether one connection's link flaps: the last links were all short."""

    def __init__(self, turns: Turns = _TURNS) -> None:
        self._turns = turns
        self._short = 0

    def link_lasted(self, seconds: float) -> None:
        """Note for how many seconds the link that was just lost had been up."""
        self._short = self._short + 1 if seconds < STABLE_S else 0

    def wait(self, now: float) -> float:
        """Seconds until this connection may dial, after the wait by its options; 0.0 for now."""
        return self._turns.reserve(now) if self._short > FREE else 0.0

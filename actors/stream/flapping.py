"""A common pace for the reconnects of flapping links, over all workers of one broker.

A peer may accept a link and close the link at once. Every reconnect then costs a worker a few
milliseconds of processor time. Fifty flapping links with a short `maxInterval` keep a machine busy,
and other connections wait. So a flapping link takes a turn among the flapping links. The first
retries after a stable link need no turn: option `interval` alone applies.

The time of the next turn stands in memory shared by the children of the zygote. Where workers are
separate interpreters (`TRUNKLINE_SPAWN=exec`), every worker has turns of its own.
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
    """The time of the next free turn, in memory shared by forked processes.

    No lock guards the memory. In a race two workers get the same turn, without harm. A killed
    worker could leave a lock behind and hold up the other workers."""

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
"""Made when the zygote imports the module, before the fork: forked workers share the memory."""


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

"""What a worker knows of its broker. `Contact` decides, without socket, clock or loop; `BrokerWatch` looks.

with its broker  --lose-->  without a broker  --hear-->  with its broker
without a broker  --too long-->  the worker ends
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

__all__ = ["BEAT_S", "FORSAKEN_S", "ORPHAN_S", "BrokerWatch", "Contact"]

BEAT_S = 1.0
"""How often a worker tells the broker its state, and the broker answers."""
MISSED_BEATS = 3
"""After so many beats without an answer the broker counts as lost, where its process cannot be watched."""
ORPHAN_S = 1.5
"""How long a worker without a broker stays when every process that used it is gone too."""
FORSAKEN_S = 60.0
"""How long it stays otherwise: their control threads start a broker at once, unless one holds its GIL."""


class Contact:
    """`now`: seconds of the monotonic clock, as in each method."""

    def __init__(self, now: float) -> None:
        self._heard_at = now
        self._lost_at: float | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the worker has no broker."""
        return self._lost_at is not None

    def hear(self, now: float) -> None:
        """The broker, perhaps another one, has said something."""
        self._heard_at = now
        self._lost_at = None

    def lose(self, now: float) -> bool:
        """The broker is gone. False where that was known."""
        if self._lost_at is not None:
            return False
        self._lost_at = now
        return True

    def is_silent(self, now: float) -> bool:
        """Whether the broker has not answered for so long that it counts as lost."""
        return self._lost_at is None and now - self._heard_at > BEAT_S * (MISSED_BEATS + 1)

    def has_waited_long_enough(self, now: float, may_come_back: bool) -> bool:
        """Whether a worker without a broker ends. `may_come_back`: a process lives that could start one."""
        return self._lost_at is not None and now - self._lost_at > (
            FORSAKEN_S if may_come_back else ORPHAN_S
        )


class BrokerWatch:
    """Calls `ended` on the loop when the broker's process ends. It watches by a pidfd, so that the id cannot
    come to mean another process; where the system has none (macOS), `Contact.is_silent` tells the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Callable[[], None]) -> None:
        self._loop = loop
        self._ended = ended
        self._pid = 0
        self._fd = -1

    def watch(self, pid: int) -> None:
        """Watch this process from now on, and no other. One that has ended already is told at once."""
        if pid == self._pid or not hasattr(os, "pidfd_open"):
            return
        self.stop()
        with contextlib.suppress(OSError):
            self._fd = os.pidfd_open(pid)
            self._pid = pid
            self._loop.add_reader(self._fd, self._ended)
            return
        self._loop.call_soon(self._ended)

    def stop(self) -> None:
        """Watch no process any more."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._pid = 0

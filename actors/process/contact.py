"""The worker's view of its broker: `Contact` decides, without socket, clock or loop.

`BrokerWatch` watches the broker's process.

* with its broker  --lose-->  without a broker  --hear-->  with its broker
* without a broker  --too long-->  the worker ends
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

__all__ = ["BEAT_S", "FORSAKEN_S", "ORPHAN_S", "BrokerWatch", "Contact"]

BEAT_S = 1.0
"""Seconds between two reports to the broker. The broker answers each report."""
MISSED_BEATS = 3
"""So many unanswered beats mean a lost broker: it hangs, or its end could not be watched."""
ORPHAN_S = 1.5
"""Seconds that a worker without a broker stays after the end of all processes that used it."""
FORSAKEN_S = 60.0
"""Seconds that the worker stays otherwise.

The programs' control threads start a broker at once, unless another thread of theirs holds the GIL.
"""


class Contact:
    """Decides whether the broker is lost, and when to end. `now` is in monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._heard_at = now
        self._lost_at: float | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the worker has no broker."""
        return self._lost_at is not None

    def hear(self, now: float) -> None:
        """Note a message of the broker, or of its successor."""
        self._heard_at = now
        self._lost_at = None

    def lose(self, now: float) -> bool:
        """Note that the broker is gone. Returns False where the loss was known."""
        if self._lost_at is not None:
            return False
        self._lost_at = now
        return True

    def is_silent(self, now: float) -> bool:
        """Whether the broker has been silent for too long and counts as lost."""
        return self._lost_at is None and now - self._heard_at > BEAT_S * (MISSED_BEATS + 1)

    def has_waited_long_enough(self, now: float, may_come_back: bool) -> bool:
        """Whether a worker without a broker ends now.

        `may_come_back`: a process lives that could start a broker.
        """
        return self._lost_at is not None and now - self._lost_at > (
            FORSAKEN_S if may_come_back else ORPHAN_S
        )


class BrokerWatch:
    """Calls `ended` on the loop when the broker's process ends.

    It watches by a pidfd, which keeps meaning the same process while an id may be given to another
    one. Where the system has no pidfds (macOS), `Contact.is_silent` notices the end.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Callable[[], None]) -> None:
        self._loop = loop
        self._ended = ended
        self._pid = 0
        self._fd = -1

    @property
    def is_watching(self) -> bool:
        """Whether the end of the broker's process will be told."""
        return self._fd >= 0

    def watch(self, pid: int) -> None:
        """Watch another process. `ended` is called soon if that process has ended already."""
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

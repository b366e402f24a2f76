"""The broker's clock, and the time of the next check of deadlines."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["TICK_S", "Schedule"]

TICK_S = 0.25
"""Seconds between two checks where nothing is due earlier."""


class Schedule:
    """`now` returns seconds of a monotonic clock. `next_look`: the time of the next check."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.next_look = 0.0

    def look_by(self, due: float) -> None:
        """Set the next check to `due`, unless it is earlier already."""
        self.next_look = min(self.next_look, due)

    def begin_look(self, now: float) -> float:
        """Set the next check one tick ahead. Returns how late the present check is, in seconds."""
        late_s = now - self.next_look
        self.next_look = now + TICK_S
        return late_s

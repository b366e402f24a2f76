"""The broker's clock, and when the poll loop looks at the time next."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["TICK_S", "Schedule"]

TICK_S = 0.25
"""How often the broker looks at its deadlines where nothing is due earlier."""


class Schedule:
    """`now` returns seconds of a clock that never goes back. `next_look` is the time of the next look."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.next_look = 0.0

    def look_by(self, due: float) -> None:
        """Look at the time at `due` at the latest."""
        self.next_look = min(self.next_look, due)

    def begin_look(self, now: float) -> float:
        """Set the next look a tick ahead. Returns by how many seconds the present look is late."""
        late_s = now - self.next_look
        self.next_look = now + TICK_S
        return late_s

"""When to log that messages were dropped. Pure: the caller passes the time and the count."""

from __future__ import annotations

__all__ = ["DropReport"]

_EVERY_S = 10.0


class DropReport:
    """Allows one log line at the first dropped message, then at most one line in ten seconds."""

    def __init__(self) -> None:
        self._told = 0
        self._told_at = -_EVERY_S

    def due(self, dropped: int, now: float) -> int:
        """The number of dropped messages to report now; 0 for no line now.

        `dropped`: dropped messages since the start. `now`: seconds of a monotonic clock."""
        new = dropped - self._told
        if new <= 0 or now - self._told_at < _EVERY_S:
            return 0
        self._told, self._told_at = dropped, now
        return new

"""When to tell the user that messages were dropped. Pure: the caller has the clock and the count."""

from __future__ import annotations

__all__ = ["DropReport"]

_EVERY_S = 10.0


class DropReport:
    """One line at the first dropped message, then at most one every ten seconds."""

    def __init__(self) -> None:
        self._told = 0
        self._told_at = -_EVERY_S

    def due(self, dropped: int, now: float) -> int:
        """How many dropped messages a line now should tell of, 0 for no line. `dropped` is their number since
        the start, `now` seconds of a clock that never goes back."""
        new = dropped - self._told
        if new <= 0 or now - self._told_at < _EVERY_S:
            return 0
        self._told, self._told_at = dropped, now
        return new

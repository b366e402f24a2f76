"""How fast a connection may write (option `limit`). Pure: the caller waits, the caller has the clock."""

from __future__ import annotations

from collections import deque

__all__ = ["Pace", "pace_of"]

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_MARGIN = 1.05
"""The peer counts by its own clock, and the network may bring two messages closer together."""


class Pace:
    """At most `count` writes in any `period_s` seconds, in the order in which they asked."""

    def __init__(self, count: int, period_s: float) -> None:
        self._window_s = period_s * _MARGIN
        self._turns: deque[float] = deque(maxlen=count)

    def reserve(self, now: float, latest: float) -> float | None:
        """When the next write may go out, which is then its turn; None, and no turn, when that is after
        `latest`. All are seconds of one clock."""
        turn = now
        if self._turns:
            turn = max(turn, self._turns[-1])
            if len(self._turns) == self._turns.maxlen:
                turn = max(turn, self._turns[0] + self._window_s)
        if turn > latest:
            return None
        self._turns.append(turn)
        return turn


def pace_of(limit: str | None) -> Pace | None:
    """The pace that a value of option `limit` means (`5/s`, `300/m`, `1000/h`); None for none."""
    if not limit:
        return None
    count, _, unit = limit.partition("/")
    return Pace(int(count), _SECONDS[unit])

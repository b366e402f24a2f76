"""The rate limit of writes (option `limit`). Pure: the caller passes the time and sleeps."""

from __future__ import annotations

from collections import deque

__all__ = ["Pace", "pace_of"]

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_MARGIN = 1.05
"""Factor on the period: the peer's clock differs, and the network delays messages unequally."""


class Pace:
    """Allows `count` writes in any `period_s` seconds, in the order of the calls of `reserve`."""

    def __init__(self, count: int, period_s: float) -> None:
        self._window_s = period_s * _MARGIN
        self._turns: deque[float] = deque(maxlen=count)

    def reserve(self, now: float, latest: float) -> float | None:
        """Reserve a turn for the next write, and return the time of the turn.

        None, without a turn, where the turn would be after `latest`. All times are seconds of one
        clock."""
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
    """The pace of a value of option `limit` (`5/s`, `300/m`, `1000/h`); None without a value."""
    if not limit:
        return None
    count, _, unit = limit.partition("/")
    return Pace(int(count), _SECONDS[unit])

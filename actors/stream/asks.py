"""Asks that could not be answered at once: parked until an entry comes, or deferred by a recall."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

__all__ = ["Asked", "Asks"]


class Asked(NamedTuple):
    """The arguments of a deferred ask, as in `Buffer.ask`."""

    number: int
    epoch: int
    consumed: int
    wait: bool
    newest: bool


class Asks:
    """Open asks that wait, in the order of arrival."""

    __slots__ = ("deferred", "parked")

    def __init__(self) -> None:
        self.parked: deque[bytes] = deque()
        """Holders that wait for an entry."""
        self.deferred: dict[bytes, Asked] = {}
        """Asks that came while a recall was unanswered, by holder."""

    def park(self, holder_id: bytes) -> None:
        """Add the holder behind the waiting holders, unless the holder waits already."""
        if holder_id not in self.parked:
            self.parked.append(holder_id)

    def drop(self, holder_id: bytes) -> None:
        """Remove the holder's ask."""
        self.deferred.pop(holder_id, None)
        if holder_id in self.parked:
            self.parked.remove(holder_id)

    def take_deferred(self) -> dict[bytes, Asked]:
        """Take out all deferred asks, in the order of arrival."""
        deferred, self.deferred = self.deferred, {}
        return deferred

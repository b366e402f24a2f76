"""Reads that could not be answered at once: holders that wait for an entry, and asks put off by a recall."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

__all__ = ["Asked", "Asks"]


class Asked(NamedTuple):
    """A read that could not be answered at once."""

    number: int
    epoch: int
    consumed: int
    wait: bool
    newest: bool


class Asks:
    """The holders whose asks are open, in the order in which they asked."""

    __slots__ = ("deferred", "parked")

    def __init__(self) -> None:
        self.parked: deque[bytes] = deque()
        """Holders that wait for an entry."""
        self.deferred: dict[bytes, Asked] = {}
        """Asks that came while a recall was not answered, by their holders."""

    def park(self, holder_id: bytes) -> None:
        """The holder waits for an entry; behind the others, unless it waits already."""
        if holder_id not in self.parked:
            self.parked.append(holder_id)

    def drop(self, holder_id: bytes) -> None:
        """The holder waits no longer."""
        self.deferred.pop(holder_id, None)
        if holder_id in self.parked:
            self.parked.remove(holder_id)

    def take_deferred(self) -> dict[bytes, Asked]:
        """The asks that were put off, which are not put off any longer."""
        deferred, self.deferred = self.deferred, {}
        return deferred

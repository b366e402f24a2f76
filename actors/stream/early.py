"""Messages that come before the link counts as open (answers to payloads), within limits. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from trunkline.actors.driver import Delivery

__all__ = ["Arrival", "EarlyArrivals"]


class Arrival(NamedTuple):
    """One batch: plain messages, or messages with their envelopes."""

    plain: Sequence[str | bytes]
    enveloped: Sequence[Delivery] = ()


class EarlyArrivals:
    """Holds `limit` messages and `limit_bytes` bytes at most, in order of arrival.

    Beyond the limits, where `drops` is true, the oldest messages are dropped and counted. Otherwise
    the arrivals exceed the limits, and `is_full` tells the caller to pause the driver."""

    def __init__(self, limit: int, limit_bytes: int, *, drops: bool) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._drops = drops
        self._arrivals: deque[Arrival] = deque()
        self._count = 0
        self._bytes = 0
        self.dropped = 0

    @property
    def is_full(self) -> bool:
        return self._count >= self._limit or self._bytes > self._limit_bytes

    def add(self, arrival: Arrival) -> None:
        """Add a batch."""
        self._arrivals.append(arrival)
        self._count += len(arrival.plain) + len(arrival.enveloped)
        self._bytes += _size(arrival)
        while self._drops and self._is_over():
            self._drop_oldest()

    def take(self) -> list[Arrival]:
        """Take out all batches, in order."""
        taken = list(self._arrivals)
        self._arrivals.clear()
        self._count = self._bytes = 0
        return taken

    def last(self) -> str | bytes:
        """The newest message; "" for none."""
        if not self._arrivals:
            return ""
        newest = self._arrivals[-1]
        return newest.enveloped[-1].data if newest.enveloped else newest.plain[-1]

    def _is_over(self) -> bool:
        """Whether the limits are exceeded. A single message may be larger than `limit_bytes`."""
        return self._count > self._limit or (self._bytes > self._limit_bytes and self._count > 1)

    def _drop_oldest(self) -> None:
        """Drop the first message of the oldest batch."""
        oldest = self._arrivals.popleft()
        size = _size(oldest)
        if len(oldest.plain) > 1:
            rest = Arrival(oldest.plain[1:])
        elif len(oldest.enveloped) > 1:
            rest = Arrival((), oldest.enveloped[1:])
        else:
            rest = Arrival(())
        if rest.plain or rest.enveloped:
            self._arrivals.appendleft(rest)
        self._count -= 1
        self._bytes -= size - _size(rest)
        self.dropped += 1


def _size(arrival: Arrival) -> int:
    return sum(map(len, arrival.plain)) + sum(len(each.data) for each in arrival.enveloped)

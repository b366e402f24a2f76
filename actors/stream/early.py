"""Messages that come before the link counts as open (answers to payloads), within limits. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

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
        # Single messages, so that a drop costs the same in a batch of any length.
        self._messages: deque[str | bytes | Delivery] = deque()
        self._bytes = 0
        self.dropped = 0

    @property
    def is_full(self) -> bool:
        return len(self._messages) >= self._limit or self._bytes > self._limit_bytes

    def add(self, arrival: Arrival) -> None:
        """Add a batch."""
        self._messages += arrival.plain
        self._messages += arrival.enveloped
        self._bytes += sum(map(len, arrival.plain))
        self._bytes += sum(len(delivery.data) for delivery in arrival.enveloped)
        while self._drops and self._is_over():
            self._bytes -= len(_data_of(self._messages.popleft()))
            self.dropped += 1

    def take(self) -> list[Arrival]:
        """Take out all messages, in order. Neighbours of one kind are one batch."""
        taken: list[Arrival] = []
        for is_enveloped, group in groupby(self._messages, lambda each: isinstance(each, Delivery)):
            batch: list[Any] = list(group)
            taken.append(Arrival((), batch) if is_enveloped else Arrival(batch))
        self._messages.clear()
        self._bytes = 0
        return taken

    def last(self) -> str | bytes:
        """The newest message; "" for none."""
        return _data_of(self._messages[-1]) if self._messages else ""

    def _is_over(self) -> bool:
        """Whether the messages exceed the limits. A single message is never too much."""
        count = len(self._messages)
        return count > self._limit or (self._bytes > self._limit_bytes and count > 1)


def _data_of(message: str | bytes | Delivery) -> str | bytes:
    return message.data if isinstance(message, Delivery) else message

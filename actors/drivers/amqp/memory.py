"""What one amqp connection remembers from one link to the next: all as long as its worker lives, and what was
deleted by somebody also in the worker that replaces a killed one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trunkline.address import Address

__all__ = ["Memory", "memory_of"]


class Memory:
    """See the module."""

    def __init__(self) -> None:
        self.deleted: set[str] = set()
        """"queue" and "exchange": that was deleted on the broker while a link was open, so by somebody."""
        self.stray_told = False
        """The user knows of messages that come through a binding of others: see `strays`."""
        self.stream_next: int | None = None
        """Of a RabbitMQ stream: the offset after the messages that readers have."""
        self.stream_seen = -1
        """The highest offset that came."""
        self._has_inherited = False

    def bequeath(self) -> dict[str, Any]:
        """What the next worker is to know."""
        return {"deleted": sorted(self.deleted)}

    def inherit(self, left: Mapping[str, Any]) -> None:
        """What the worker before this one has bequeathed; only once is that news."""
        if not self._has_inherited:
            self._has_inherited = True
            self.deleted |= set(left.get("deleted", ()))


_memories: dict[int, tuple[Address, Memory]] = {}


def memory_of(address: Address) -> Memory:
    """The memory of the connection whose address this very object is: a worker gives one object to all its
    drivers."""
    found = _memories.get(id(address))
    if found is None:
        found = _memories[id(address)] = (address, Memory())
    return found[1]

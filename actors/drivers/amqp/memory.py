"""The memory of one amqp connection, kept from link to link as long as its worker lives. No I/O.

Deletions of the queue or the exchange are also told to the worker that replaces a killed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trunkline.address import Address

__all__ = ["Memory", "memory_of"]


class Memory:
    """What later links of the connection must know."""

    def __init__(self) -> None:
        self.deleted: set[str] = set()
        """Holds "queue" or "exchange" when that was deleted on the broker while a link was open, so
        on purpose.
        """
        self.stray_told = False
        """Whether the user was told of messages that come through a foreign binding: see
        `strays`.
        """
        self.stream_next: int | None = None
        """For a RabbitMQ stream: the offset behind the messages that readers have had."""
        self.stream_seen = -1
        """For a RabbitMQ stream: the highest offset that has come."""
        self._has_inherited = False

    def bequeath(self) -> dict[str, Any]:
        """Return what the next worker must know, for `inherit`."""
        return {"deleted": sorted(self.deleted)}

    def inherit(self, left: Mapping[str, Any]) -> None:
        """Take over the memory of the worker before this one. Only the first call has an effect."""
        if not self._has_inherited:
            self._has_inherited = True
            self.deleted |= set(left.get("deleted", ()))


_memories: dict[int, tuple[Address, Memory]] = {}


def memory_of(address: Address) -> Memory:
    """Return the memory of the connection with this address object, which a worker gives to all
    drivers.
    """
    found = _memories.get(id(address))
    if found is None:
        found = _memories[id(address)] = (address, Memory())
    return found[1]

"""Which delivery tags are settled. No I/O.

The broker numbers the deliveries of a channel from 1. Readers settle them in any order; where all up to a tag
are settled, one acknowledgement stands for many.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["SettledTags"]


class SettledTags:
    """The tags of one channel."""

    def __init__(self) -> None:
        self._through = 0
        """This tag and all before it are settled."""
        self._beyond: set[int] = set()
        """Settled tags with unsettled tags before them."""

    def is_settled(self, tag: int) -> bool:
        """Whether the tag is among those up to which all are settled."""
        return tag <= self._through

    def follows(self, tag: int) -> bool:
        """Whether all tags before this one are settled."""
        return tag == self._through + 1

    def add(self, tag: int) -> Sequence[int]:
        """Settle a tag. The tags up to which all are settled now, and were not before, in order."""
        self._beyond.add(tag)
        first = self._through + 1
        while self._through + 1 in self._beyond:
            self._through += 1
            self._beyond.remove(self._through)
        return range(first, self._through + 1)

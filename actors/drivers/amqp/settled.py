"""The delivery tags that are settled. No I/O.

The broker numbers the deliveries of a channel from 1, and readers settle them in any order. Where
all tags up to a certain one are settled, one acknowledgement stands for many.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["SettledTags"]


class SettledTags:
    """The settled tags of one channel."""

    def __init__(self) -> None:
        self._through = 0
        """The highest tag up to which all are settled."""
        self._beyond: set[int] = set()
        """Settled tags behind an unsettled one."""

    def is_settled(self, tag: int) -> bool:
        """Whether the tag and its predecessors are settled."""
        return tag <= self._through

    def follows(self, tag: int) -> bool:
        """Whether the tag is the first unsettled one."""
        return tag == self._through + 1

    def add(self, tag: int) -> Sequence[int]:
        """Settle a tag; return, in order, the tags up to which all are settled now and were not
        before.
        """
        self._beyond.add(tag)
        first = self._through + 1
        while self._through + 1 in self._beyond:
            self._through += 1
            self._beyond.remove(self._through)
        return range(first, self._through + 1)

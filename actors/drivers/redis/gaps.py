"""Entries that a stream lost before they were read (XTRIM, MAXLEN, XDEL): counted by numbers. No I/O.

A server counts all entries that a stream ever took (`entries-added`, since Redis 7). Where it is known how
many entries lie behind the last one that was read, the difference is how many were there up to that one. Each
entry that was read moves this position by one; where it moved further, entries were deleted unread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.actors.drivers.redis.entries import Id, id_key

__all__ = ["Gaps", "StreamState", "named"]


def named(reply: Sequence[Any]) -> dict[str, Any]:
    """The answer of XINFO, names and values by turns, as a dict."""
    return {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=False)}


class StreamState:
    """What XINFO STREAM says; `reply` is None where there is no such stream."""

    def __init__(self, reply: Sequence[Any] | None) -> None:
        found: Mapping[str, Any] = named(reply or ())
        self.exists = reply is not None
        self.length = int(found.get("length", 0))
        self.last = id_key(found.get("last-generated-id", "0-0"))
        """The id of the last entry that the stream took, deleted or not."""
        self.first: Id | None = (
            id_key(found["first-entry"][0]) if found.get("first-entry") else None
        )
        self.newest: Id | None = id_key(found["last-entry"][0]) if found.get("last-entry") else None
        """The first and the last entry that are there."""
        self.added: int | None = found.get("entries-added") if self.exists else 0
        """None: the server does not count them (before Redis 7)."""

    def behind(self, read: Id) -> int | None:
        """How many entries lie behind the id `read`; None where the state does not tell."""
        if self.first is None or self.newest is None or read >= self.newest:
            return 0
        return self.length if self.first > read else None


class Gaps:
    """Counts what a stream lost between two entries that were read."""

    def __init__(self) -> None:
        self._position: int | None = None
        """How many entries the stream took up to the last one that was read; None: not known."""

    def forget(self) -> None:
        """Another reader took entries: the position is not known any more."""
        self._position = None

    def delivered(self, count: int) -> None:
        """So many entries were read that lie behind the former ones."""
        if self._position is not None:
            self._position += count

    def look(self, state: StreamState, read: Id) -> int:
        """How many entries were lost since the last look that told a position. `read` is the last entry that
        was read; the state is of a moment after that, and before the next entry was asked for."""
        behind = state.behind(read)
        if behind is None or state.added is None:
            return 0
        former, self._position = self._position, state.added - behind
        return max(0, self._position - former) if former is not None else 0

"""Entries that a stream lost before they were read (XTRIM, MAXLEN, XDEL): counted by numbers.

No I/O.

A server counts all entries that a stream ever took (`entries-added`, since Redis 7). Subtracting
the entries behind the last read entry gives the *position*: how many entries the stream took up to
the last read entry. Each read entry moves the position by one. A larger move means that entries
were deleted unread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.actors.drivers.redis.entries import Id, id_key

__all__ = ["Gaps", "StreamState", "named"]


def named(reply: Sequence[Any]) -> dict[str, Any]:
    """Return an answer of XINFO, with names and values alternately, as a dict."""
    return {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=False)}


class StreamState:
    """The answer of XINFO STREAM. `reply` is None where the stream does not exist."""

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
        """The ids of the first and the last entry that exist."""
        self.added: int | None = found.get("entries-added") if self.exists else 0
        """How many entries the stream took in all; None without such a count (before Redis 7)."""

    def behind(self, read: Id) -> int | None:
        """Return how many entries lie behind the id `read`; None where the state does not tell."""
        if self.first is None or self.newest is None or read >= self.newest:
            return 0
        return self.length if self.first > read else None


class Gaps:
    """Counts entries that a stream lost between two entries that were read."""

    def __init__(self) -> None:
        self._position: int | None = None
        """How many entries the stream took up to the last read entry; None for unknown."""

    def forget(self) -> None:
        """Forget the position: another reader took entries."""
        self._position = None

    def delivered(self, count: int) -> None:
        """Note that `count` further entries were read."""
        if self._position is not None:
            self._position += count

    def look(self, state: StreamState, read: Id) -> int:
        """Return how many entries were lost since the last look that gave a position.

        `read`: the id of the last entry that was read. `state`: taken after that read and before
        the next question.
        """
        behind = state.behind(read)
        if behind is None or state.added is None:
            return 0
        former, self._position = self._position, state.added - behind
        return max(0, self._position - former) if former is not None else 0

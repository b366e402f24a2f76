"""How many messages may be given out: those that readers do not have yet never exceed the buffer. No I/O."""

from __future__ import annotations

__all__ = ["Room"]


class Room:
    """The count of messages given out and not consumed, for one link.

    The reader's thread counts what is given out, the loop counts what is consumed: each number has one writer
    while the link is open, so that no lock is needed.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: messages that may be with the worker and its readers, unread."""
        self._limit = limit
        self._given = 0
        self._consumed = 0
        self.is_paused = False
        """The worker's buffer is full (`StreamDriver.pause`); the loop assigns it."""
        self._full_since: float | None = None

    @property
    def left(self) -> int:
        """How many messages may be given out now."""
        if self.is_paused:
            return 0
        return max(0, self._limit - self._given + self._consumed)

    @property
    def is_full(self) -> bool:
        """The thread has found no room at its last turn."""
        return self._full_since is not None

    def begin_link(self) -> None:
        """Another link: what was given out over the former one does not count."""
        self._given = self._consumed = 0
        self._full_since = None

    def note_given(self, count: int) -> None:
        self._given += count

    def note_consumed(self, count: int) -> None:
        self._consumed += count

    def note_free(self) -> None:
        """There is room again."""
        self._full_since = None

    def seconds_full(self, now: float) -> float:
        """For how long there has been no room, counted from the first call after `note_free`. `now`: seconds
        of the monotonic clock."""
        if self._full_since is None:
            self._full_since = now
        return now - self._full_since

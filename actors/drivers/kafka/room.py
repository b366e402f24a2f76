"""How many messages may be given out: unread messages never exceed the buffer. No I/O."""

from __future__ import annotations

__all__ = ["Room"]


class Room:
    """The count of messages given out and not consumed, for one link.

    The reader's thread counts messages given out, and the event loop counts messages consumed. Each
    number has one writer while the link is open, so no lock is needed.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: how many unread messages the worker and its readers may have."""
        self._limit = limit
        self._given = 0
        self._consumed = 0
        self.is_paused = False
        """Whether the worker's buffer is full (`StreamDriver.pause`). The event loop assigns it."""
        self._full_since: float | None = None

    @property
    def left(self) -> int:
        """How many messages may be given out now."""
        if self.is_paused:
            return 0
        return max(0, self._limit - self._given + self._consumed)

    @property
    def is_full(self) -> bool:
        """Whether the thread found no room at its last turn."""
        return self._full_since is not None

    def begin_link(self) -> None:
        """Begin another link. Messages given out over the former link do not count."""
        self._given = self._consumed = 0
        self._full_since = None

    def note_given(self, count: int) -> None:
        self._given += count

    def note_consumed(self, count: int) -> None:
        self._consumed += count

    def note_free(self) -> None:
        """Note that there is room again."""
        self._full_since = None

    def seconds_full(self, now: float) -> float:
        """Return for how many seconds there has been no room, from the first call after `note_free`
        on.

        `now`: seconds of the monotonic clock.
        """
        if self._full_since is None:
            self._full_since = now
        return now - self._full_since

"""Callbacks for file descriptors and for the ends of processes, on the poll loop's selector."""

from __future__ import annotations

import contextlib
import selectors
from collections.abc import Callable

from trunkline.broker.process import Watch

__all__ = ["Watcher"]


class Watcher:
    """Wraps a selector. The data of a key is a callback or None."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector

    def call_when_readable(self, fd: int, callback: Callable[[], None] | None) -> None:
        """Call a function when a file descriptor is readable; None: only wake the loop."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def forget(self, fd: int) -> None:
        """Stop watching a file descriptor. Call this before the descriptor is closed."""
        self._selector.unregister(fd)

    def call_at_end(self, watch: Watch, callback: Callable[[], None]) -> None:
        """Call a function when a process ends; at once where it has ended and has no pidfd.

        Where the system has no pidfds, `Workers.notice_end` and `Clients.drop_lost_clients` ask
        again and again.
        """
        if watch.fileno() >= 0:
            self.call_when_readable(watch.fileno(), callback)
        elif watch.ended():
            callback()

    def release(self, watch: Watch) -> None:
        """Stop watching a process, and close its pidfd."""
        if watch.fileno() >= 0:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(watch.fileno())
        watch.close()

    def call_ready(self, timeout_s: float) -> None:
        """Wait until a file descriptor is readable, and call the callbacks of all readable ones.

        `timeout_s`: the longest wait, in seconds.
        """
        for key, _ in self._selector.select(timeout_s):
            if key.data is not None:
                key.data()

"""Log lines of a stream for its users, limited in number so that the log stays readable."""

from __future__ import annotations

import time

from trunkline.actors.stream.buffer import Buffer
from trunkline.actors.stream.drops import DropReport
from trunkline.actors.stream.figures import Counters
from trunkline.actors.stream.host import Host

__all__ = ["UserLog"]

SAME_WARNING_S = 5.0
"""Seconds before a warning with the same beginning (40 letters) is written again."""


class UserLog:
    """Warnings and reports of dropped messages of one connection."""

    def __init__(self, host: Host, buffer: Buffer, counters: Counters) -> None:
        self._host = host
        self._buffer = buffer
        self._counters = counters
        self._drops = DropReport()
        self._warned: dict[str, float] = {}

    def warn(self, text: str) -> None:
        """Write a warning, unless the same warning was written a few seconds ago."""
        self._counters.last_error = text
        now = time.monotonic()
        key = text[:40]
        if now - self._warned.get(key, -SAME_WARNING_S) >= SAME_WARNING_S:
            self._warned[key] = now
            self._host.log("warning", text)

    def tell_drops(self) -> None:
        """Write how many messages were dropped since the last line, where a line is due."""
        buffer, counters = self._buffer, self._counters
        total = buffer.dropped + counters.dropped_elsewhere
        if not (new := self._drops.due(total, time.monotonic())):
            return
        option = "buffer_bytes" if buffer.too_large > buffer.dropped // 2 else "buffer"
        why = f"the reader is too slow: read faster, or give {option}=n"
        if not buffer.dropped and not counters.dropped_early:
            why = "they were lost before they could be buffered"
        count = f"{new} message was" if new == 1 else f"{new} messages were"
        self._host.log(
            "warning", f"{self._host.address.display}: {count} dropped, {total} in all ({why})"
        )

"""`GetCommand`: what somebody typed, or another program wrote, to the strategy's standard input."""

from __future__ import annotations

import os
import select
import threading

__all__ = ["Commands"]

LONGEST = 65536
"""A line is cut here, so that a stream without line ends cannot fill the memory."""


class Commands:
    """Reads lines from a file descriptor without ever waiting for one, and only when asked to: a
    script that never calls `GetCommand` may read its standard input itself."""

    def __init__(self, fd: int | None = 0) -> None:
        self._fd = fd
        self._data = b""
        self._lock = threading.Lock()

    def __call__(self) -> str | None:
        """The next line (`name` or `name:value`), or None when there is none."""
        with self._lock:
            while True:
                line, mark, rest = self._data.partition(b"\n")
                if mark or len(line) >= LONGEST:
                    self._data = rest
                    if text := line.decode("utf-8", "replace").strip():
                        return text
                elif not self._read_more():
                    return None

    def _read_more(self) -> bool:
        fd = self._fd
        if fd is None or not self._is_readable(fd):
            return False
        try:
            data = os.read(fd, LONGEST)
        except OSError:
            data = b""
        if not data:
            self._fd = None
            self._data += b"\n" if self._data else b""  # the last line may have no end
            return bool(self._data)
        self._data += data
        return True

    def _is_readable(self, fd: int) -> bool:
        try:
            # A background job that reads its terminal is stopped by the kernel.
            if os.isatty(fd) and os.tcgetpgrp(fd) != os.getpgrp():
                return False
            return bool(select.select([fd], [], [], 0)[0])
        except (OSError, ValueError):
            self._fd = None
            return False

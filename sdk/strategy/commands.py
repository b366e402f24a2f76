"""`GetCommand`: the lines that a person or a program writes to the strategy's standard input."""

from __future__ import annotations

import os
import select
import threading

__all__ = ["Commands"]

LONGEST = 65536
"""The longest line.

A longer line is cut, so that a stream without line ends cannot fill the memory.
"""


class Commands:
    """Reads lines from a file descriptor, without waiting, and only when called.

    A script that never calls `GetCommand` may read its standard input itself.
    """

    def __init__(self, fd: int | None = 0) -> None:
        self._fd = fd
        self._data = b""
        self._lock = threading.Lock()

    def __call__(self) -> str | None:
        """The next line (`name` or `name:value`); None when no whole line has come."""
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
        """Read the bytes that are available.

        Returns False when no bytes came, and at the end of the input.
        """
        fd = self._fd
        if fd is None or not self._is_readable(fd):
            return False
        try:
            data = os.read(fd, LONGEST)
        except OSError:
            data = b""
        if not data:
            self._fd = None
            # The last line may have no line end.
            self._data += b"\n" if self._data else b""
            return bool(self._data)
        self._data += data
        return True

    def _is_readable(self, fd: int) -> bool:
        """Whether a read returns at once. A descriptor that cannot be waited for is given up."""
        try:
            # The kernel stops a background job that reads its terminal.
            if os.isatty(fd) and os.tcgetpgrp(fd) != os.getpgrp():
                return False
            return bool(select.select([fd], [], [], 0)[0])
        except (OSError, ValueError):
            self._fd = None
            return False

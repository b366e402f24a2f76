"""Keeping the broker's log bounded. Its workers write into the same file, so it is shortened in place: all
have it open for appending, so whoever writes next writes at its new end.
"""

from __future__ import annotations

import os
import stat

__all__ = ["LIMIT_BYTES", "trim"]

LIMIT_BYTES = 2 << 20
KEEP_BYTES = 256 << 10


def trim(fd: int, limit: int = LIMIT_BYTES, keep: int = KEEP_BYTES) -> bool:
    """Cut a log that has outgrown `limit` down to its last `keep` bytes, from the start of a line. Whether it
    was cut. A terminal or a pipe, or a file that cannot be read back, is left alone."""
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_size <= limit:
        return False
    try:
        tail = os.pread(fd, keep, info.st_size - keep)
        tail = tail[tail.find(b"\n") + 1 :]
        os.ftruncate(fd, 0)
        os.write(fd, b"trunkline broker: the log was shortened here\n" + tail)
    except OSError:
        return False
    return True

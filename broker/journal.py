"""Keeping the broker's log bounded.

Workers write into the same file, so the log is shortened in place. The processes have opened the
file for appending, so the next line goes to the new end.
"""

from __future__ import annotations

import os
import stat

__all__ = ["LIMIT_BYTES", "trim"]

LIMIT_BYTES = 2 << 20
KEEP_BYTES = 256 << 10


def trim(fd: int, limit: int = LIMIT_BYTES, keep: int = KEEP_BYTES) -> bool:
    """Cut a log longer than `limit` bytes down to its last `keep` bytes, from the start of a line.

    Returns whether the log was cut. A terminal, a pipe, or a file that cannot be read back is left
    alone.
    """
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

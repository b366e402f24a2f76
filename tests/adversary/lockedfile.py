"""The file of an SQLite database that somebody else locks: the fault of a link that a file can have."""

from __future__ import annotations

import sqlite3
from pathlib import Path

__all__ = ["LockedFile"]

_WAIT_S = 2.0


class LockedFile:
    """`stall` locks the file against everybody, `heal` ends that."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self._holder: sqlite3.Connection | None = None

    def stall(self) -> None:
        """Lock it; nothing where others write all the time."""
        if self._holder is not None:
            return
        holder = sqlite3.connect(self.address, timeout=_WAIT_S, isolation_level=None)
        try:
            holder.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            holder.close()
        else:
            self._holder = holder

    def heal(self) -> None:
        """Let everybody in again."""
        if self._holder is not None:
            self._holder.rollback()
            self._holder.close()
            self._holder = None

    stop = heal

    def reset(self) -> None:
        """There is no link that could be reset."""

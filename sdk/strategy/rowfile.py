"""The file with a strategy's log rows.

On a full disk the strategy goes on, and the file lacks rows.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["RowFile"]


class RowFile:
    """Appends lines to the file at `path`, every line by a single write.

    OSError when the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._missing = 0

    def add(self, line: str) -> str | None:
        """Write a line. Returns a text for the user when lines begin to go missing, or are written
        again; else None."""
        why = self._write_whole(line.encode() + b"\n")
        if why is not None:
            self._missing += 1
            return (
                f"the log file {self._path} cannot be written ({why})"
                if self._missing == 1
                else None
            )
        missing, self._missing = self._missing, 0
        if missing:
            return (
                f"the log file {self._path} can be written again; {missing} rows are missing in it"
            )
        return None

    def _write_whole(self, data: bytes) -> str | None:
        """Write the data whole and return None; else return the reason."""
        try:
            done = self._file.write(data)
            if done == len(data):
                return None
            # A torn line would be joined to the next line, so the file is cut back.
            if done:
                os.ftruncate(self._file.fileno(), os.fstat(self._file.fileno()).st_size - done)
        except OSError as error:
            return error.strerror or str(error)
        return os.strerror(errno.ENOSPC)

    def keep(self, choose: Callable[[list[str]], list[str]]) -> None:
        """Keep only the lines that `choose` returns, in their order.

        OSError when the disk has no room for the new file.
        """
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        try:
            fresh.write_text("".join(choose(lines)), encoding="utf-8")
            os.replace(fresh, self._path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        self._file.close()
        self._file = self._path.open("ab", buffering=0)

    def close(self) -> None:
        """Close the file. No line waits to be written."""
        self._file.close()

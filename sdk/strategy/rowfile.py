"""The file with a strategy's log rows. A full disk does not end the strategy: its rows are missing there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["RowFile"]


class RowFile:
    """Lines are added to the file at `path`, each with one write. OSError when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._missing = 0

    def add(self, line: str) -> str | None:
        """Write a line. What the user is to be told: that lines go missing from now on, or that they come
        again; None when nothing has changed."""
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
        """Why not, when it was not written whole."""
        try:
            done = self._file.write(data)
            if done == len(data):
                return None
            if done:  # no torn line: what comes next would be joined to it
                os.ftruncate(self._file.fileno(), os.fstat(self._file.fileno()).st_size - done)
        except OSError as error:
            return error.strerror or str(error)
        return os.strerror(errno.ENOSPC)

    def keep(self, choose: Callable[[list[str]], list[str]]) -> None:
        """Keep what `choose` gives of the lines, in their order. OSError when there is no room to do that."""
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
        """Nothing is waiting to be written."""
        self._file.close()

"""What a process of a trial writes down: one JSON array a line, in a file of its own.

A line is one `write` to a file opened for appending, so a killed process loses none that it had written, and
forked children may share it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["NoteFile", "Notes", "read_notes"]

Note = list[Any]


class Notes:
    """The file of one process."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def __call__(self, *values: object) -> None:
        os.write(self._fd, json.dumps(values, default=str).encode() + b"\n")


def read_notes(path: Path) -> Iterator[Note]:
    """All that was written so far; a last line that is not whole yet is left out."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield json.loads(line)


class NoteFile:
    """The notes of a process that goes on writing: each look takes only what is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._notes: list[Note] = []

    def read(self) -> list[Note]:
        """All that was written so far."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._at)
                whole = file.read().rpartition(b"\n")[0]
            if whole:
                self._at += len(whole) + 1
                self._notes += map(json.loads, whole.split(b"\n"))
        return self._notes

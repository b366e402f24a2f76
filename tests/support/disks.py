"""Places where writing fails for real: a disk without room, and folders and files that may only be read.

As root they are small file systems in memory, mounted for the test. Others may not mount, but are bound by
permissions, which root is not; and SQLite's own limit stands in for the disk's.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from tests.support.waiting import until

__all__ = ["SmallDisk", "may_only_be_read", "mounted", "small_disk"]

_PIECE = 4096


class Executes(Protocol):
    def exec(self, sql: str) -> object: ...


def _mount(*words: str | Path) -> bool:
    if os.geteuid() != 0:
        return False
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, timeout=20, check=False)
    return done.returncode == 0  # root in a container may lack the right


def _unmount(folder: Path) -> None:
    def gone() -> bool:
        done = subprocess.run(["umount", str(folder)], capture_output=True, timeout=20, check=False)
        return done.returncode == 0

    until(gone, f"the last process left {folder}")


@contextlib.contextmanager
def mounted(folder: Path, *words: str | Path) -> Iterator[bool]:
    """Something mounted at `folder` during the block; False where that is not allowed."""
    if not _mount(*words, folder):
        yield False
        return
    try:
        yield True
    finally:
        _unmount(folder)


class SmallDisk:
    """A folder for a database, whose disk can be filled to the last byte and made free again."""

    def __init__(self, folder: Path, real: bool) -> None:
        self.folder = folder
        self._real = real
        self._ballast = folder / "ballast"

    def fill(self, conn: Executes) -> None:
        """There is no room for `conn` to write from now on."""
        if not self._real:
            conn.exec("PRAGMA max_page_count = 1")  # which SQLite raises to what it has already
            return
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * _PIECE)

    def free(self, conn: Executes) -> None:
        if not self._real:
            conn.exec("PRAGMA max_page_count = 1000000")
        self._ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """A disk of one megabyte at `folder`, where mounting is allowed."""
    folder.mkdir()
    with mounted(folder, "-t", "tmpfs", "-o", "size=1m", "none") as real:
        yield SmallDisk(folder, real)


@contextlib.contextmanager
def may_only_be_read(folder: Path) -> Iterator[None]:
    """Nothing in `folder`, a plain one, can be written or made during the block."""
    with mounted(folder, "--bind", folder) as real:
        if real:
            assert _mount("-o", "remount,ro,bind", folder)
            yield
            return
        files = [path for path in folder.iterdir() if path.is_file()]
        for path in (*files, folder):
            path.chmod(0o555)
        try:
            yield
        finally:
            for path in (*files, folder):
                path.chmod(0o755)

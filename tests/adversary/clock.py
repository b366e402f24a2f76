"""A wall clock that a trial moves, as NTP or an operator does: a C library that its processes preload."""

from __future__ import annotations

import atexit
import shutil
import struct
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

__all__ = ["Clock"]

_SOURCE = Path(__file__).with_name("clock.c")


@cache
def _library() -> Path | None:
    """The library, made once a run; None where it cannot be (no Linux, no compiler)."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    folder = Path(tempfile.mkdtemp(prefix="adv-clock-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = folder / "clock.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(made), str(_SOURCE), "-ldl", "-lm"]
    done = subprocess.run(command, capture_output=True, check=False)
    return made if done.returncode == 0 else None


class Clock:
    """The clock of one trial; its file is made in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._ahead = 0.0
        self.jump(0.0)

    def environment(self) -> dict[str, str]:
        """For processes that shall have this clock."""
        library = _library()
        return (
            {}
            if library is None
            else {"LD_PRELOAD": str(library), "ADVERSARY_CLOCK": str(self._file)}
        )

    def jump(self, seconds: float) -> None:
        """Move it on (or back) by so much, for those who run, too."""
        self._ahead += seconds
        if self._file.exists():
            with self._file.open("r+b") as file:  # in its place: they have it mapped
                file.write(struct.pack("d", self._ahead))
        else:
            self._file.write_bytes(struct.pack("d", self._ahead))

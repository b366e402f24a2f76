"""SIGSTOP that has taken effect: the signal alone returns before the process is stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.waiting import until

__all__ = ["stop"]


def stop(*pids: int) -> None:
    """Stop these processes, and return when none of their threads runs. Those that are gone are left out.

    On a busy machine a thread may run on for a moment after the signal, and answer once more.
    """
    for pid in pids:
        try:
            os.kill(pid, signal.SIGSTOP)
        except ProcessLookupError:
            continue
    until(lambda: all(map(_stands, pids)), f"the stop of {pids}")


def _stands(pid: int) -> bool:
    try:
        return all(_state(task) in "TtZX" for task in Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return not Path(f"/proc/{pid}").exists()


def _state(task: Path) -> str:
    """The letter after the name, which is in brackets and may hold anything."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0]

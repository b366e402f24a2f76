"""Reaping brokers that have become children of this process: number 1 of a container, or a
subreaper.

A broker started by a Dial has no living parent, so the operating system makes the broker a child of
number 1. When the broker is killed, its zygote and workers become children of number 1, too. An
ended child stays a zombie until its parent waits for the child. So this process has to wait for the
broker, the zygote and the workers.

The program waits for its own children itself; this module leaves those alone.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["adopt", "adopt_started"]

LOOK_S = 1.0
"""Seconds between two looks for processes that have ended."""
_MARK = b"--ready-fd"
"""An argument of brokers started by a Dial. The program waits itself for a broker that it has
started otherwise."""


class _Process(NamedTuple):
    """A row of the process table. `state` is "Z" for a zombie."""

    pid: int
    state: str
    parent: int
    session: int


class _Reaper:
    """The thread that waits for brokers that became children of this process, and the brokers'
    sessions.

    `_lock` guards the attributes: any thread calls `add`, only the reaper's thread calls `_look`.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._sessions: set[int] = set()
        self._runs = False

    def is_of_this_process(self) -> bool:
        """Whether the reaper's thread runs in this process. False in a forked child."""
        return self._pid == os.getpid()

    def add(self, session: int) -> None:
        """Wait for the processes of a session, too. Starts the thread unless the thread runs
        already."""
        with self._lock:
            self._sessions.add(session)
            runs, self._runs = self._runs, True
        if not runs:
            threading.Thread(target=self._run, name="trunkline-orphans", daemon=True).start()

    def _run(self) -> None:
        """The thread: look until no process of the sessions is left."""
        pause = threading.Event()
        while self._look():
            pause.wait(LOOK_S)

    def _look(self) -> bool:
        """Wait for the ended processes of the sessions. Returns whether further processes are
        alive."""
        with self._lock:
            found = [process for process in _processes() if process.session in self._sessions]
            for process in found:
                if process.state == "Z" and process.parent == self._pid:
                    with contextlib.suppress(OSError):
                        os.waitpid(process.pid, os.WNOHANG)
            self._sessions = {process.session for process in found if process.state != "Z"}
            self._runs = bool(self._sessions)
            return self._runs


_reaper: _Reaper | None = None


def adopt(broker: int) -> None:
    """Wait for the end of a broker and its workers, where they are children unknown to the program.

    Called for every broker that this process joins.
    """
    with contextlib.suppress(OSError):
        if _MARK in Path(f"/proc/{broker}/cmdline").read_bytes().split(b"\0"):
            adopt_started(broker)


def adopt_started(broker: int) -> None:
    """Do the same for a broker started by a Dial of this process. The broker may be dead
    already."""
    global _reaper
    process = _look_at(broker)
    if process is None or process.parent != os.getpid() or process.session != broker:
        return
    if _reaper is None or not _reaper.is_of_this_process():
        _reaper = _Reaper()
    _reaper.add(broker)


def _processes() -> Iterator[_Process]:
    """All processes of the system. Empty without /proc."""
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit() and (process := _look_at(int(name))) is not None:
                yield process


def _look_at(pid: int) -> _Process | None:
    """The row of a process. None for an ended process, and on a system without /proc."""
    try:
        words = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return _Process(pid, words[0].decode(), int(words[1]), int(words[3]))
    except (OSError, ValueError, IndexError):
        return None

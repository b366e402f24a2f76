"""Reaping brokers that become children of this process, where it is number 1 of a container or a
subreaper.

A broker that a Dial starts is left without a parent, so the operating system makes it a child of
number 1. Its zygote and workers become children of number 1 when the broker is killed. A child that
ends stays a zombie until its parent waits for it, so this process has to wait for all of these.

Other children are left alone: the program waits for them itself.
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
"""An argument of brokers that a Dial has started. A program that has started a broker otherwise
waits for it itself."""


class _Process(NamedTuple):
    """A row of the process table. `state` is "Z" for a zombie."""

    pid: int
    state: str
    parent: int
    session: int


class _Reaper:
    """The sessions of brokers that became children of this process, and the thread that waits for
    them.

    `_lock` guards both attributes: `add` is called by any thread, `_look` by the reaper's thread.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._sessions: set[int] = set()
        self._runs = False

    def is_of_this_process(self) -> bool:
        """Whether the reaper's thread belongs to this process. False in a forked child, which has
        no such thread."""
        return self._pid == os.getpid()

    def add(self, session: int) -> None:
        """Wait for the processes of a session too. Starts the thread if it does not run."""
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
        """Wait for the processes that have ended. Returns whether others of their sessions are
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
    """Wait for the end of a broker and its workers, where they are children that the program does
    not know.

    Called for each broker that this process joins.
    """
    with contextlib.suppress(OSError):
        if _MARK in Path(f"/proc/{broker}/cmdline").read_bytes().split(b"\0"):
            adopt_started(broker)


def adopt_started(broker: int) -> None:
    """The same for a broker that a Dial of this process has started and that may have been killed
    since."""
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
    """The row of one process. None when the process is gone, and on a system without /proc."""
    try:
        words = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return _Process(pid, words[0].decode(), int(words[1]), int(words[3]))
    except (OSError, ValueError, IndexError):
        return None

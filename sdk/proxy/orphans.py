"""Where this process is number 1 of a container (or a subreaper): a broker that a program starts is
nobody's child, so it becomes ours, and its zygote and workers do when it is killed. When they end
we have to take note of it, or each stays a zombie for as long as we live.

Nothing else is touched: the program waits for its own children itself.
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
_MARK = b"--ready-fd"
"""An argument of brokers that a Dial has started. The program waits for those that it started
itself."""


class _Process(NamedTuple):
    pid: int
    state: str
    parent: int
    session: int


class _Reaper:
    """The sessions of brokers that became children of this process, and the thread that waits for
    them."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._sessions: set[int] = set()
        self._runs = False

    def is_of_this_process(self) -> bool:
        return self._pid == os.getpid()

    def add(self, session: int) -> None:
        with self._lock:
            self._sessions.add(session)
            runs, self._runs = self._runs, True
        if not runs:
            threading.Thread(target=self._run, name="trunkline-orphans", daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while self._look():
            pause.wait(LOOK_S)

    def _look(self) -> bool:
        """Await those that have ended; whether others of their sessions live."""
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
    """Called for each broker that this process joins: await its end and that of its workers, where
    they are children of this process that it does not know of."""
    with contextlib.suppress(OSError):
        if _MARK in Path(f"/proc/{broker}/cmdline").read_bytes().split(b"\0"):
            adopt_started(broker)


def adopt_started(broker: int) -> None:
    """The same for a broker that a Dial of this process has started, which may have been killed
    since."""
    global _reaper
    process = _look_at(broker)
    if process is None or process.parent != os.getpid() or process.session != broker:
        return
    if _reaper is None or not _reaper.is_of_this_process():
        _reaper = _Reaper()
    _reaper.add(broker)


def _processes() -> Iterator[_Process]:
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit() and (process := _look_at(int(name))) is not None:
                yield process


def _look_at(pid: int) -> _Process | None:
    """None when it is gone, and on a system without /proc."""
    try:
        words = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return _Process(pid, words[0].decode(), int(words[1]), int(words[3]))
    except (OSError, ValueError, IndexError):
        return None

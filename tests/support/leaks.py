"""Finds what a test left behind: processes, threads, descriptors, files, ZeroMQ contexts.

`Leaks()` remembers what there is; `check()` after the test raises `Leaked`, which names everything that is
there now and was not then. What ends by itself is given a little time, looked at again and again.

Processes are found two ways, because a daemon leaves the tree and a fork does not change its environment
block: all descendants of this process, and all processes whose environment was started with our
`TRUNKLINE_TEST_ID` (and their descendants, which finds their zombies).
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import zmq

from trunkline.deadline import Deadline

__all__ = ["MARKER", "Anchor", "Leaked", "Leaks", "describe", "files_in", "our_processes"]

MARKER = "TRUNKLINE_TEST_ID"
OWN_GRACE_S = 5.0
"""For threads, descriptors and contexts: what is closed may still be on its way down."""
CYCLE_GRACE_S = 1.0
"""For what the test itself left in cycles, before all objects of the process are looked through."""
OTHERS_GRACE_S = 8.0
"""For processes and files: a broker without clients ends itself within 5 s."""
_LOOK_EVERY_S = 0.02

# The standard library starts these once and keeps them until the interpreter ends.
_STANDARD_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
# Opened once by the interpreter or a library at first use and kept on purpose.
_PERSISTENT_TARGETS = ("/dev/urandom", "/dev/null")


# Per marker, processes that are known not to be ours: they never become it, and looking is slow.
_strangers: dict[str, set[psutil.Process]] = {}


class Leaked(AssertionError):
    """The test left something behind; the text names it."""


@dataclass
class Anchor:
    """A broker that is meant to outlive the tests: its processes (the zygote too) and files when ready.

    What it starts later, a worker above all, must be gone after the test.
    """

    processes: set[psutil.Process] = field(default_factory=set)
    files: set[Path] = field(default_factory=set)


class Leaks:
    """What there is before a test, to be compared with what there is after it."""

    def __init__(self, runtime: Path, marker: str, anchor: Anchor | None = None) -> None:
        self.runtime = runtime
        self.marker = marker
        self.anchor = anchor or Anchor()
        self.processes = our_processes(marker)
        self.files = files_in(runtime)
        self.threads = set(threading.enumerate())
        self.contexts = {id(context) for context in _open_contexts()}
        self.descriptors = set(_descriptors().items())

    def check(self) -> None:
        """Raise `Leaked` when something is left at the end of its grace."""
        if any(self._own()):
            _collect_young()
        if any(self._own()) and _settled(self._own, CYCLE_GRACE_S):
            gc.unfreeze()
            gc.collect()
        _complain(
            "the test", _settled(self._own, OWN_GRACE_S) + _settled(self._others, OTHERS_GRACE_S)
        )

    def check_session(self) -> None:
        """Processes and files only: the rest was each test's own to answer for."""
        _complain("the session", _settled(self._others, OTHERS_GRACE_S))

    def _own(self) -> Iterator[str]:
        for thread in threading.enumerate():
            if thread not in self.threads:
                yield f"thread {thread.name}{' (daemon)' if thread.daemon else ''}"
        for context in _open_contexts():
            if id(context) not in self.contexts:
                yield f"ZeroMQ context {context!r}"
        for number, target in set(_descriptors().items()) - self.descriptors:
            if not target.startswith(_PERSISTENT_TARGETS) and number not in _standard_descriptors():
                yield f"descriptor {number} -> {target}"

    def _others(self) -> Iterator[str]:
        for process in our_processes(self.marker) - self.processes - self.anchor.processes:
            if not _is_standard_helper(process):
                yield describe(process)
        for path in sorted(files_in(self.runtime) - self.files - self.anchor.files):
            yield f"file {path}"


def _collect_young() -> None:
    """Free what the test left in reference cycles. A process that has run thousands of tests holds millions
    of objects, which take seconds to look through. So those that stay are frozen: the next collection leaves
    them out."""
    gc.collect()
    gc.freeze()


def our_processes(marker: str) -> set[psutil.Process]:
    """Living and zombie processes that this process or one with our marker started.

    Most tests start none: where the system has the very processes it had at the last look, so have we.
    """
    pids = frozenset(filter(str.isdigit, os.listdir("/proc"))) if sys.platform == "linux" else None
    last = _last_look.get(marker)
    if pids is None or last is None or last[0] != pids:
        last = _last_look[marker] = (pids, _look_for_processes(marker))
    return set(last[1])


_last_look: dict[str, tuple[frozenset[str] | None, set[psutil.Process]]] = {}


def _look_for_processes(marker: str) -> set[psutil.Process]:
    wanted = f"{MARKER}={marker}".encode()
    parents: dict[int, int] = {}
    everything: dict[int, psutil.Process] = {}
    roots = {os.getpid()}
    strangers = _strangers.get(marker, set())
    for process in psutil.process_iter():
        everything[process.pid] = process
        if process not in strangers:
            with contextlib.suppress(psutil.Error, OSError):
                parents[process.pid] = process.ppid()
                if _has_marker(process, wanted):
                    roots.add(process.pid)
    ours = {
        process
        for pid, process in everything.items()
        if pid != os.getpid() and any(each in roots for each in _lineage(pid, parents))
    }
    _strangers[marker] = set(everything.values()) - ours
    return ours


def _lineage(pid: int, parents: dict[int, int]) -> Iterator[int]:
    """The process and its ancestors. A pid may have been reused meanwhile, so circles must end."""
    seen: set[int] = set()
    while pid and pid not in seen:
        yield pid
        seen.add(pid)
        pid = parents.get(pid, 0)


def _has_marker(process: psutil.Process, wanted: bytes) -> bool:
    try:
        # Of an exact variable: gw1's marker is a prefix of gw10's.
        return wanted in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    except FileNotFoundError:
        if sys.platform == "linux":
            return False
    name, _, value = wanted.decode().partition("=")
    return process.environ().get(name) == value


def describe(process: psutil.Process) -> str:
    """A process as a person would want to see it in a failure: pid, parent, state, command."""
    with contextlib.suppress(psutil.Error):
        words = _command(process) or process.name()
        return f"process {process.pid} (parent {process.ppid()}, {process.status()}): {words[:300]}"
    return f"process {process.pid} (just gone)"


def _command(process: psutil.Process) -> str:
    """The command line; "" of a zombie, which has none any more."""
    try:
        return " ".join(process.cmdline())
    except psutil.ZombieProcess:
        return ""


def _is_standard_helper(process: psutil.Process) -> bool:
    """One of the standard library's own. What a fork server forked is not: its parent is another."""
    with contextlib.suppress(psutil.NoSuchProcess):
        command = _command(process)
        return process.ppid() == os.getpid() and any(name in command for name in _STANDARD_HELPERS)
    return True  # gone between two looks


def _standard_descriptors() -> set[int | None]:
    """The pipe to multiprocessing's resource tracker, which lives as long as the interpreter."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    return {getattr(getattr(module, "_resource_tracker", None), "_fd", None)}


def _descriptors() -> dict[int, str]:
    """Open descriptors and what they lead to."""
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    targets: dict[int, str] = {}
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):  # the descriptor of the listing itself is gone by now
            number = int(name)
            status = os.fstat(number)
            targets[number] = _target(folder, name, status)
    return targets


def _target(folder: str, name: str, status: os.stat_result) -> str:
    if folder == "/proc/self/fd":
        return os.readlink(f"{folder}/{name}")
    return f"device {status.st_dev} inode {status.st_ino}"


def files_in(folder: Path) -> set[Path]:
    """Everything in the folder that is not a folder: sockets, locks, logs."""
    return {Path(at) / name for at, _, names in os.walk(folder) for name in names}


def _open_contexts() -> list[object]:
    return [context for context in list(_contexts) if not context.closed]


_contexts: weakref.WeakSet[zmq.Context[zmq.Socket[bytes]]] = weakref.WeakSet()


def _note_contexts() -> None:
    """Remember every ZeroMQ context that is made: to look for them among all objects takes 30 ms a test."""
    make = zmq.Context.__init__

    def made(self: zmq.Context[zmq.Socket[bytes]], *args: object, **options: object) -> None:
        make(self, *args, **options)  # type: ignore[arg-type]
        _contexts.add(self)

    zmq.Context.__init__ = made  # type: ignore[method-assign]


_note_contexts()


def _complain(who: str, found: list[str]) -> None:
    if found:
        raise Leaked(f"{who} left behind:\n" + "\n".join(f"  {line}" for line in found))


def _settled(look: Callable[[], Iterator[str]], grace_s: float) -> list[str]:
    """What is still there at the end of the grace; returns as soon as nothing is."""
    deadline = Deadline(grace_s)
    while found := list(look()):
        if deadline.expired():
            return found
        time.sleep(_LOOK_EVERY_S)
    return []

"""Checks of the system's limits, made before a library would abort the process at a limit."""

from __future__ import annotations

import _thread
import errno
import mmap
import os
import resource
import time

import zmq

from trunkline.deadline import Deadline

__all__ = ["NO_THREAD", "lacks_descriptors", "make_context", "memory_limit_mb"]

NO_THREAD = "the system allows no further thread or process (`ulimit -u`, `ulimit -v`, the pids limit of a container)"
_ZEROMQ_THREADS = 2
"""ZeroMQ's I/O thread and its reaper thread."""
_SPARE_BYTES = 8 << 20
_END_S = 1.0


def make_context(further: int = 0) -> zmq.Context[zmq.Socket[bytes]]:
    """Return a ZeroMQ context with running threads.

    `further`: how many further threads the caller will start. Raises OSError (EAGAIN) where the
    system does not allow all these threads: ZeroMQ itself would abort the process.
    """
    _try_threads(_ZEROMQ_THREADS + further)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.socket(zmq.PAIR).close()  # the first socket starts ZeroMQ's threads
    if memory_limit_mb() is not None and not _has_spare_memory():
        context.term()
        raise OSError(errno.EAGAIN, NO_THREAD)
    return context


def lacks_descriptors() -> bool:
    """Whether this process can open no further file or socket.

    ZeroMQ then retries its connects for ever, without an error.
    """
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


def memory_limit_mb() -> int | None:
    """The limit on the address space of this process and its children, in MB; None if unlimited."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft >> 20


def _has_spare_memory() -> bool:
    """Whether memory is left for the connections of ZeroMQ, which aborts the process without it."""
    try:
        mmap.mmap(-1, _SPARE_BYTES).close()
    except (OSError, MemoryError):
        return False
    return True


def _try_threads(count: int) -> None:
    """Start `count` threads at once and wait for their end.

    Raises OSError (EAGAIN) where the system does not allow so many threads.
    """
    before = _threads()
    gate = _thread.allocate_lock()
    gate.acquire()
    try:
        for _ in range(count):
            _thread.start_new_thread(_pass, (gate,))
    except (RuntimeError, MemoryError):
        raise OSError(errno.EAGAIN, NO_THREAD) from None
    finally:
        gate.release()
        deadline = Deadline(_END_S)
        while _threads() > before and not deadline.expired():
            # the ended threads must not count any more when ZeroMQ starts its own
            time.sleep(0.0001)


def _pass(gate: _thread.LockType) -> None:
    with gate:
        pass


def _threads() -> int:
    """The number of this process's threads; 0 where the system does not tell it (macOS)."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0

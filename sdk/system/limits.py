"""What a process may still have, asked before a library that aborts the process where it cannot have it."""

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
"""Its I/O thread and its reaper."""
_SPARE_BYTES = 8 << 20
_END_S = 1.0


def make_context(further: int = 0) -> zmq.Context[zmq.Socket[bytes]]:
    """A ZeroMQ context whose threads run. `further`: how many threads more its owner will start.

    Raises OSError (EAGAIN) where they cannot all be started: ZeroMQ itself would abort the process.
    """
    _try_threads(_ZEROMQ_THREADS + further)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.socket(zmq.PAIR).close()  # the first socket starts the threads
    if memory_limit_mb() is not None and not _has_spare_memory():
        context.term()
        raise OSError(errno.EAGAIN, NO_THREAD)
    return context


def lacks_descriptors() -> bool:
    """Whether this process can open no further file or socket. ZeroMQ then tries to connect, in silence."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


def memory_limit_mb() -> int | None:
    """How much address space this process and its children may have; None where nothing limits it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft >> 20


def _has_spare_memory() -> bool:
    """Whether ZeroMQ can have what its connections need: where it cannot, it aborts the process."""
    try:
        mmap.mmap(-1, _SPARE_BYTES).close()
    except (OSError, MemoryError):
        return False
    return True


def _try_threads(count: int) -> None:
    """Start so many threads at once and await their end."""
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
            time.sleep(0.0001)  # their places must be free again


def _pass(gate: _thread.LockType) -> None:
    with gate:
        pass


def _threads() -> int:
    """How many threads the system counts for this process; 0 where it does not tell (macOS)."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0

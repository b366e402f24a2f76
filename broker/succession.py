"""Waiting for the place of a running broker at the same address.

`trunkline broker` under a service manager waits in this way where a program has started a broker
before.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from trunkline.broker.process import Watch, ending_signals
from trunkline.wire import endpoint

__all__ = ["await_place", "reap"]

LOOK_S = 0.25
"""Seconds between two attempts at the lock: the end of its holder does not show where the holder
runs in another container."""
AGAIN_S = 0.05
"""Seconds of pause after the end of a holder whose lock is not free yet."""


def await_place(folder: Path, address: str, say: Callable[[str], None]) -> int | None:
    """Wait until the broker at `address` ends, and take its lock.

    Returns the file descriptor of the lock; None when SIGTERM or SIGINT has ended the wait. `say`
    gets a line with the name of the lock's holder, again at each new holder. Raises the errors of
    `endpoint.claim`. Call this in the main thread, before a second thread starts: it sets signal
    handlers.
    """
    said = None
    with _signals() as (wake, stopped):
        while not stopped:
            fd = endpoint.try_claim(folder)
            if fd is not None:
                return fd
            pid = endpoint.holder(folder)
            if (line := _in_words(pid, address)) != said:
                said = line
                say(line)
            _pause(wake, pid)
            reap()
    return None


def reap() -> list[int]:
    """Reap the ended children. Returns their process ids.

    Process 1 also inherits the children of ended parents, and has to reap them, too.
    """
    ended = []
    with contextlib.suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            ended.append(pid)
    return ended


def _in_words(pid: int | None, address: str) -> str:
    who = "another process" if pid is None else f"process {pid}"
    return f"{who} runs a broker at {address}; this one waits and takes over when that ends"


def _pause(wake: int, pid: int | None) -> None:
    """Wait for a signal, the end of the process, or LOOK_S seconds."""
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    if pid is None:
        poll.poll(LOOK_S * 1000)
        return
    watch = Watch(pid)
    try:
        if watch.fileno() >= 0:
            poll.register(watch.fileno(), select.POLLIN)
        ended = any(fd != wake for fd, _ in poll.poll(LOOK_S * 1000))
        if ended and watch.fileno() >= 0:
            # Its lock is free by now. Otherwise the process id in the lock is that of a process in
            # another container.
            poll.unregister(watch.fileno())
            poll.poll(AGAIN_S * 1000)
    finally:
        watch.close()


@contextlib.contextmanager
def _signals() -> Iterator[tuple[int, list[int]]]:
    """Provide a file descriptor that a signal makes readable, and a list for its number."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    came: list[int] = []
    before = {each: signal.getsignal(each) for each in ending_signals()}
    wakes = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    try:
        for each in before:
            signal.signal(each, lambda number, _: came.append(number))
        yield read_end, came
    finally:
        signal.set_wakeup_fd(wakes)
        for each, handler in before.items():
            signal.signal(each, handler)
        os.close(read_end)
        os.close(write_end)

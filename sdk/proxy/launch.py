"""Reaching a broker, and starting one where there is none."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import subprocess
import threading
from pathlib import Path

from trunkline.deadline import Deadline
from trunkline.errors import BrokerGone
from trunkline.proxy.orphans import adopt_started
from trunkline.system import interpreter
from trunkline.system.interpreter import command, environment
from trunkline.system.limits import NO_THREAD
from trunkline.wire import endpoint

__all__ = ["START_S", "broker_address", "ensure_broker"]

START_S = 20.0
"""Seconds for the start of a broker."""
RETRY_S = 0.05
"""Seconds between two attempts."""
LAST_WORDS_S = 1.0
"""Seconds for the end of an interpreter without output."""


def broker_address() -> str:
    """The address of this process's broker.

    The address is in TRUNKLINE_BROKER. Without that variable a new address is made and put there,
    so that child processes use the same broker.
    """
    address = os.environ.get(endpoint.ENV)
    if not address:
        address = endpoint.new_address()
        endpoint.folder_of(address)
        os.environ[endpoint.ENV] = address
    return address


def ensure_broker(address: str, deadline: Deadline | None = None) -> None:
    """Return when a broker serves `address`; start one if none does.

    Several programs may try at once: the lock in the broker's folder lets one of them win. Raises
    BrokerGone with the reason, at the `deadline` and after 20 s at the latest.
    """
    until = Deadline(START_S if deadline is None else min(START_S, deadline.left()))
    why = f"it does not answer; `trunkline doctor` or {log_of(address)} may tell more"
    while True:
        if endpoint.alive(address):
            return
        word, _, said = _start(address, until).partition(" ")
        if word == "ready":
            return
        if word == "refused":
            raise BrokerGone(f"the broker could not be started: {said}")
        why = said or why
        if until.expired():
            raise BrokerGone(f"the broker could not be started in the time allowed: {why}")
        threading.Event().wait(min(RETRY_S, until.left()))


def _start(address: str, until: Deadline) -> str:
    """Start a broker, not as a child of this process. Returns a word and a reason:

    * "ready": the broker serves the address.
    * "busy": another broker is there or is starting.
    * "refused": the start failed, and another attempt would fail too.
    * "lost": the broker ended without a message.
    * "late": the time is over; the broker may still be starting.
    """
    ready_r, ready_w = _pipe()
    try:
        process = _run_broker(address, ready_w)
    except OSError as error:
        os.close(ready_r)
        if error.errno in (errno.EAGAIN, errno.ENOMEM):
            return f"refused {error.strerror}: {NO_THREAD}, or there is too little memory"
        why = f"{interpreter.interpreter()} cannot be run ({error.strerror})"
        return f"refused {why}; set {interpreter.ENV} to the path of a Python interpreter"
    except BaseException:
        os.close(ready_r)
        raise
    finally:
        os.close(ready_w)
    try:
        # The process forks the broker and ends at once. `with` waits for it, so no zombie is left.
        with process:
            lines = _Lines(ready_r)
            said = lines.next(until)
            pid = 0
            if said is not None and said.startswith(endpoint.PID_WORD):
                pid = int(said.partition(" ")[2])
                said = lines.next(until)
            if said is None:
                _wait_exit(process, 0)
                word = "late it was not ready yet; dial again, with a longer timeout"
            elif not said and not pid and _wait_exit(process, LAST_WORDS_S) == 0:
                why = f"{interpreter.interpreter()} ended without a word"
                return f"refused {why}; set {interpreter.ENV} to the path of a Python interpreter"
            elif not said and _wait_exit(process, LAST_WORDS_S) != 0:
                return f"refused {_last_line(process)}{_named_interpreter()}"
            else:
                word = (
                    said or f"lost it ended while it was starting; {log_of(address)} may tell more"
                )
        if pid:
            adopt_started(pid)
        return word
    finally:
        os.close(ready_r)


def log_of(address: str) -> Path:
    """The path of the log of a broker and its workers."""
    return endpoint.folder_of(address) / endpoint.LOG


def _run_broker(address: str, ready_w: int) -> subprocess.Popen[bytes]:
    """Start the interpreter that starts the broker. It writes lines about the start to
    `ready_w`."""
    arguments = ["--address", address, "--ready-fd", str(ready_w), "--starter", str(os.getpid())]
    # A session of its own keeps a Ctrl-C of this moment from the broker. The pipe tells how the
    # start went. Of the standard error only the last line is of use (`_last_line`).
    return subprocess.Popen(
        command("trunkline.broker", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(ready_w,),
        start_new_session=True,
        env=environment(),
    )


def _pipe() -> tuple[int, int]:
    """A pipe whose two file descriptors are 3 or above.

    The program may have closed a standard descriptor, so that os.pipe returns its number. A child
    process gets its own standard descriptors there.
    """
    ends = os.pipe()
    try:
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in ends]
    finally:
        for end in ends:
            os.close(end)
    return high[0], high[1]


class _Lines:
    """The lines of a starting broker in the pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""
        self._poll = select.poll()  # select() takes no descriptor above 1023
        self._poll.register(fd, select.POLLIN)

    def next(self, until: Deadline) -> str | None:
        """The next line. "" when the pipe was closed, None when the time is over."""
        while b"\n" not in self._rest:
            if not self._poll.poll(until.left_ms()):
                return None
            chunk = os.read(self._fd, 4096)
            if not chunk:
                break
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode(errors="replace").strip()


def _wait_exit(process: subprocess.Popen[bytes], seconds: float) -> int:
    """The exit code of an ending process. Kills the process after so many seconds."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _named_interpreter() -> str:
    """A note for error texts when the user has chosen the interpreter by the environment."""
    given = os.environ.get(interpreter.ENV)
    return f" ({interpreter.ENV} is {given})" if given else ""


def _last_line(process: subprocess.Popen[bytes]) -> str:
    """The last line printed by an interpreter unable to start (an import that failed)."""
    assert process.stderr is not None
    lines = process.stderr.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with status {process.returncode}"

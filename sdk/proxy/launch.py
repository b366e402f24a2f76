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
RETRY_S = 0.05
LAST_WORDS_S = 1.0
"""How long an interpreter that has said nothing may take to end."""


def broker_address() -> str:
    """The broker of this process: the one TRUNKLINE_BROKER names, else a new one, whose address is
    put there so that child processes share it."""
    address = os.environ.get(endpoint.ENV)
    if not address:
        address = endpoint.new_address()
        endpoint.folder_of(address)
        os.environ[endpoint.ENV] = address
    return address


def ensure_broker(address: str, deadline: Deadline | None = None) -> None:
    """Return when a broker serves `address`; start one if none does. Several programs may try at
    once: the lock in the broker's folder lets one win. Raises BrokerGone, which says why, by the
    `deadline` and within 20 s at the latest."""
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
    """Start a broker that is nobody's child. "ready ...", "busy ..." (there is one), "refused ..."
    (do not try again), "lost ..." (it ended without a word) or "late ..." (it may be starting
    still)."""
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
        # The process ends at once (it leaves the broker behind) and so does not become a zombie of
        # ours.
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
    """The file with the broker's and its workers' words."""
    return endpoint.folder_of(address) / endpoint.LOG


def _run_broker(address: str, ready_w: int) -> subprocess.Popen[bytes]:
    arguments = ["--address", address, "--ready-fd", str(ready_w), "--starter", str(os.getpid())]
    # In a session of its own at once, so that a Ctrl-C in this moment is not for it. What it says
    # before its log is open is of no use to anybody: how it went comes through the pipe.
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
    """A pipe whose ends are above the standard descriptors, one of which the program may have
    closed: a child gets its own there."""
    ends = os.pipe()
    try:
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in ends]
    finally:
        for end in ends:
            os.close(end)
    return high[0], high[1]


class _Lines:
    """What the broker says on its way."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""
        self._poll = select.poll()  # select() takes no descriptor above 1023
        self._poll.register(fd, select.POLLIN)

    def next(self, until: Deadline) -> str | None:
        """The next line; "" when it ended, None when the time is over."""
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
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _named_interpreter() -> str:
    given = os.environ.get(interpreter.ENV)
    return f" ({interpreter.ENV} is {given})" if given else ""


def _last_line(process: subprocess.Popen[bytes]) -> str:
    """What an interpreter that could not even start says (an import that fails)."""
    assert process.stderr is not None
    lines = process.stderr.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with status {process.returncode}"

"""Reaching a broker, and starting one where there is none."""

from __future__ import annotations

import os
import select
import subprocess
import threading

from trunkline import interpreter, runtime
from trunkline.deadline import Deadline
from trunkline.errors import BrokerGone
from trunkline.interpreter import command, environment

__all__ = ["START_S", "broker_address", "ensure_broker"]

START_S = 20.0
RETRY_S = 0.05


def broker_address() -> str:
    """The broker of this process: the one TRUNKLINE_BROKER names, else a new one, whose address is
    put there so that child processes share it."""
    address = os.environ.get(runtime.ENV)
    if not address:
        address = runtime.new_address()
        runtime.folder_of(address)
        os.environ[runtime.ENV] = address
    return address


def ensure_broker(address: str) -> None:
    """Return when a broker serves `address`; start one if none does. Several programs may try at once:
    the lock in the broker's folder lets one win. Raises BrokerGone."""
    folder = runtime.folder_of(address)
    until = Deadline(START_S)
    why = "it did not answer"
    while not until.expired():
        if runtime.alive(address):
            return
        word, _, why = _start(address, until).partition(" ")
        if word == "ready":
            return
        if word == "refused":
            raise BrokerGone(f"the broker could not be started: {why}")
        threading.Event().wait(RETRY_S)
    log = folder / runtime.LOG
    raise BrokerGone(f"the broker could not be started: {why}; `trunkline doctor` or {log} may tell more")


def _start(address: str, until: Deadline) -> str:
    """Start a broker that is nobody's child. "ready ...", "busy ..." (there is one), "refused ..." (do not
    try again) or "lost ..." (it ended without a word)."""
    ready_r, ready_w = os.pipe()
    arguments = ["--address", address, "--ready-fd", str(ready_w), "--starter", str(os.getpid())]
    started = command("trunkline.broker", *arguments)
    try:
        # In a session of its own at once, so that a Ctrl-C in this moment is not for it. What it says before
        # its log is open is of no use to anybody: how it went comes through the pipe.
        process = subprocess.Popen(
            started,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(ready_w,),
            start_new_session=True,
            env=environment(),
        )
    except OSError as error:
        os.close(ready_r)
        why = f"{started[0]} cannot be run ({error.strerror})"
        return f"refused {why}; set {interpreter.ENV} to the path of a Python interpreter"
    finally:
        os.close(ready_w)
    try:
        # The process ends at once (it leaves the broker behind) and so does not become a zombie of ours.
        with process:
            said = _first_line(ready_r, until)
            if not said and _wait_exit(process) != 0:
                return f"refused {_last_line(process)}"
            return said or "lost it ended while starting"
    finally:
        os.close(ready_r)


def _first_line(fd: int, until: Deadline) -> str:
    """What the broker says; "" when it ended or the time is over."""
    poll = select.poll()  # select() takes no descriptor above 1023
    poll.register(fd, select.POLLIN)
    said = b""
    while not said.endswith(b"\n") and poll.poll(until.left_ms()):
        chunk = os.read(fd, 4096)
        if not chunk:
            break
        said += chunk
    return said.decode(errors="replace").strip()


def _wait_exit(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(1.0)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _last_line(process: subprocess.Popen[bytes]) -> str:
    """What an interpreter that could not even start says (an import that fails)."""
    assert process.stderr is not None
    lines = process.stderr.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with status {process.returncode}"

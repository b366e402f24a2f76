"""Reaching a broker, and starting one where there is none."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time

from trunkline import runtime
from trunkline.errors import BrokerGone

__all__ = ["START_S", "broker_address", "ensure_broker"]

START_S = 20.0


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
    until = time.monotonic() + START_S
    why = "it did not answer"
    while time.monotonic() < until:
        if runtime.alive(address):
            return
        why = _start(address)
        if why == "ready":
            return
        if why.startswith("!"):
            break
        time.sleep(0.05)
    log = folder / "broker.log"
    raise BrokerGone(f"the broker could not be started: {why.lstrip('!')}; `trunkline doctor` or {log} may tell more")


def _start(address: str) -> str:
    """Start a broker that is nobody's child: "ready", or why not ("!" before it: do not try again)."""
    ready_r, ready_w = os.pipe()
    os.set_inheritable(ready_w, True)
    command = [sys.executable, "-m", "trunkline.broker", "--address", address, "--ready-fd", str(ready_w)]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=(ready_w,)
        )
    except OSError as error:
        os.close(ready_r)
        os.close(ready_w)
        return f"!{sys.executable} cannot be run ({error.strerror})"
    os.close(ready_w)
    try:
        # The process ends at once (it leaves the broker behind) and so does not become a zombie of ours.
        with process:
            code = _wait_exit(process)
            if code == 3:
                return "another one is just starting"
            if code != 0:
                return "!" + (_last_line(process) or f"it ended with status {code}")
            readable, _, _ = select.select([ready_r], [], [], START_S)
            answer = os.read(ready_r, 16) if readable else b""
            return "ready" if answer.startswith(b"ready") else "it ended while starting"
    finally:
        os.close(ready_r)


def _wait_exit(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(START_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _last_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    lines = process.stderr.read().decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("trunkline broker: ") if lines else ""

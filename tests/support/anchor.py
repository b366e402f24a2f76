"""The broker that the tests of one pytest process share, so that it need not start for each test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil

from tests.support.leaks import Anchor, files_in
from trunkline.wire.endpoint import NUMBER

__all__ = ["SharedBroker"]

_READY_S = 30.0
_END_S = 10.0
_ENDS_WITH_ITS_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""A pytest that is killed ends no fixture, and a persistent broker ends only when it is told to."""


class SharedBroker:
    """`python -m trunkline.broker --persistent`, started when first needed, ended with the session."""

    def __init__(self, runtime: Path) -> None:
        self.folder = runtime / "b-shared"
        self.address = f"ipc://{self.folder}/broker.sock"
        self.anchor = Anchor()
        self._process: subprocess.Popen[str] | None = None

    def ensure(self) -> str:
        """The address of a running broker; a new one where a test killed the last."""
        if self._process is None or self._process.poll() is not None:
            self._discard()
            self._start()
        return self.address

    def stop(self) -> None:
        """End it as a user would, with SIGTERM; by force when that does not help."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(
                f"the shared broker did not end within {_END_S} s of SIGTERM"
            ) from None
        finally:
            self._discard()

    def _start(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True, parents=True)
        broker = ["-m", "trunkline.broker", "--address", self.address, "--persistent"]
        command = [sys.executable, "-I", "-S", "-c", _ENDS_WITH_ITS_PARENT, *broker]
        environ = {key: value for key, value in os.environ.items() if key != "TRUNKLINE_BROKER"}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environ
        )
        self._process = process
        line = _first_line(process)
        if line != f"ready {self.address}":
            self._discard()
            raise AssertionError(
                f"the shared broker said {line!r} instead of being ready: {command}"
            )
        started = psutil.Process(process.pid)
        self.anchor.processes = {started, *started.children(recursive=True)}
        # its first connection makes the file of the last number
        self.anchor.files = {*files_in(self.folder), self.folder / NUMBER}

    def _discard(self) -> None:
        process, self._process = self._process, None
        self.anchor.processes = set()
        self.anchor.files = set()
        if process is not None:
            process.kill()
            process.wait(_END_S)
            if process.stdout:
                process.stdout.close()


def _first_line(process: subprocess.Popen[str]) -> str:
    """The first line, or what there is of it when the broker is killed for being late."""
    assert process.stdout
    late = threading.Timer(_READY_S, process.kill)
    late.start()
    try:
        return process.stdout.readline().strip()
    finally:
        late.cancel()
        late.join()

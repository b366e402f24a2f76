"""A Python program in a process of its own, watched line by line, and looks at what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from tests.support.leaks import MARKER, describe, files_in, our_processes
from tests.support.strategies import heeding_signals
from trunkline.deadline import Deadline

__all__ = ["Program", "Remains", "until"]

_ROOT = Path(__file__).parents[2]
_LOOK = threading.Event()


def until(happened: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Look again and again until something is so; AssertionError names what did not become so."""
    deadline = Deadline(seconds)
    while not happened():
        if deadline.expired():
            raise AssertionError(f"{what}: not within {seconds:g} s")
        _LOOK.wait(0.02)


class Program:
    """`python -c CODE ARGUMENTS`; killed at the end of the `with` block if it still runs.

    The code has `Dial`, `connect`, `trunkline`, `say` (prints a line at once), `os`, `sys`, `signal`,
    `threading` and `args`. `prefix`: a command that runs it.
    """

    PRELUDE = (
        "import os, sys, signal, threading, trunkline\n"
        "from trunkline import Dial, connect\n"
        "args = sys.argv[1:]\n"
        # one write, so that no line of the log comes between the words
        "def say(*words): print(' '.join(map(str, words)) + '\\n', end='', flush=True)\n"
    )

    def __init__(
        self,
        code: str,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.lines: list[str] = []
        with heeding_signals():
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-c", self.PRELUDE + code, *map(str, arguments)],
                env={**os.environ, **(env or {})},
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_line(self, start: str, timeout: float = 20.0) -> str:
        """The rest of the first line that starts so, waiting for it."""
        with self._news:
            self._news.wait_for(lambda: self._find(start) is not None or self._ended, timeout)
            found = self._find(start)
        if found is None:
            raise AssertionError(f"no line {start!r}; output:\n" + "\n".join(self.lines))
        return found

    def tell(self, line: str = "") -> None:
        """A line for its standard input."""
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def kill(self, number: int = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        return self.end()

    def end(self, timeout: float = 20.0) -> int:
        """Wait for its end; the exit code (negative: killed by that signal)."""
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # with the children it forked
        self.process.wait(10)
        self._reader.join(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()

    def _find(self, start: str) -> str | None:
        return next(
            (line.removeprefix(start).strip() for line in self.lines if line.startswith(start)),
            None,
        )

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


class Remains:
    """What there is beyond what there was when this was made: processes of ours and files of brokers."""

    def __init__(self) -> None:
        self._runtime = Path(os.environ["TRUNKLINE_RUNTIME"])
        self._before = our_processes(os.environ[MARKER])
        self._files = self._paths()

    def processes(self, name: str = "") -> list[psutil.Process]:
        """Those whose command or name (workers are called trunk-SCHEME) holds `name`."""
        new = our_processes(os.environ[MARKER]) - self._before
        return [process for process in new if name in _text(process)]

    def broker(self) -> psutil.Process:
        """The broker: the one with a child that is no worker (its zygote)."""
        found: list[psutil.Process] = []
        until(lambda: found.extend(self._parents_of_zygotes()) or found, "a broker")
        return found[0]

    def _parents_of_zygotes(self) -> list[psutil.Process]:
        candidates = [p for p in self.processes("trunkline.broker") if not _is_worker(p)]
        return [p for p in candidates if any(not _is_worker(child) for child in _children(p))]

    def zygote(self) -> psutil.Process:
        """The broker's only child."""
        return self.broker().children()[0]

    def assert_none(self, seconds: float = 5.0) -> None:
        """Everything has to be gone within 5 s (SPEC 9)."""
        deadline = Deadline(seconds)
        while found := self._found():
            if deadline.expired():
                raise AssertionError("left behind:\n" + "\n".join(found))
            _LOOK.wait(0.05)

    def _found(self) -> list[str]:
        found = [describe(process) for process in self.processes() if process.is_running()]
        return found + [str(path) for path in self._paths() - self._files]

    def _paths(self) -> set[Path]:
        folders = {path for path in self._runtime.glob("b-*") if path.is_dir()}
        return files_in(self._runtime) | folders


def _text(process: psutil.Process) -> str:
    try:
        return " ".join([process.name(), *process.cmdline()])
    except psutil.Error:
        return ""


def _is_worker(process: psutil.Process) -> bool:
    try:
        return process.name().startswith("trunk-") or process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.Error:
        return []

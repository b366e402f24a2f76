"""A strategy in a process of its own, as `trunkline run` starts it, with its output watched line by line."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

__all__ = ["RunningStrategy", "heeding_signals"]


@contextlib.contextmanager
def heeding_signals() -> Iterator[None]:
    """Start programs in here that shall not ignore SIGINT and SIGHUP: under nohup, or in the background of a
    shell script, they are ignored, and children inherit that."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class RunningStrategy:
    """`trunkline run SCRIPT`; killed at the end of the `with` block if it still runs."""

    def __init__(
        self,
        script: Path,
        *options: str,
        arguments: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        command = [sys.executable, "-m", "trunkline", "run", *options, str(script), *arguments]
        with heeding_signals():
            self.process = subprocess.Popen(
                command,
                env=dict(os.environ if env is None else env),
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """All lines so far, standard output and errors together."""
        return "\n".join(self.lines)

    def wait_line(self, text: str, *, count: int = 1, timeout: float = 30.0) -> None:
        """Wait until `count` lines hold `text`."""
        with self._news:
            found = self._news.wait_for(lambda: self._count(text) >= count or self._ended, timeout)
        if not found or self._count(text) < count:
            raise AssertionError(
                f"{self._count(text)} of {count} lines with {text!r}; output:\n{self.output}"
            )

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def say(self, line: str) -> None:
        """Write a line to the strategy's standard input."""
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def end(self, timeout: float = 30.0) -> int:
        """Wait for its end and its last words; the exit code (negative: killed by that signal)."""
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code

    def __enter__(self) -> RunningStrategy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            # With the children it forked, which hold its output open.
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self._reader.join(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()

    def _count(self, text: str) -> int:
        return sum(text in line for line in self.lines)

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

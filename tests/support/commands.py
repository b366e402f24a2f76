"""`trunkline ...` in a process of its own, with its output watched line by line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Command", "Ended", "run"]


@dataclass(frozen=True)
class Ended:
    """How a command ended, and all it said."""

    code: int
    out: str
    err: str

    @property
    def output(self) -> str:
        return self.out + self.err


class Command:
    """`python -m trunkline ARGUMENTS`; killed at the end of the `with` block if it still runs. `prefix`: a
    command that runs it."""

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str | None] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        changes = env or {}
        environ = {
            **os.environ,
            **{name: value for name, value in changes.items() if value is not None},
        }
        for name in (name for name, value in changes.items() if value is None):
            environ.pop(name, None)
        # Under nohup, or in the background of a script, SIGINT is ignored, and children inherit that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "trunkline", *arguments],
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)
        self.out: list[str] = []
        self.err: list[str] = []
        self._news = threading.Condition()
        self._open = 2
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def wait_out(self, text: str, *, count: int = 1, timeout: float = 30.0) -> str:
        """Wait for `count` lines of standard output that hold the text; the last of them."""
        return self._wait(self.out, text, count, timeout)

    def wait_err(self, text: str, *, count: int = 1, timeout: float = 30.0) -> str:
        return self._wait(self.err, text, count, timeout)

    def say(self, line: str) -> None:
        """A line on its standard input."""
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def end_input(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()

    def interrupt(self) -> None:
        """Ctrl-C, for this process alone."""
        self.process.send_signal(signal.SIGINT)

    def end(self, timeout: float = 30.0) -> Ended:
        """Wait for its end."""
        code = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
        return Ended(code, "\n".join(self.out), "\n".join(self.err))

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        for reader in self._readers:
            reader.join(10)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()

    def _read(self, stream: object, lines: list[str]) -> None:
        for line in stream:  # type: ignore[attr-defined]
            with self._news:
                lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._open -= 1
            self._news.notify_all()

    def _wait(self, lines: list[str], text: str, count: int, timeout: float) -> str:
        def found() -> list[str]:
            return [line for line in lines if text in line]

        with self._news:
            self._news.wait_for(lambda: len(found()) >= count or not self._open, timeout)
            if len(found()) < count:
                said = "\n".join([*self.out, "-- errors:", *self.err])
                raise AssertionError(f"{len(found())} of {count} lines with {text!r}:\n{said}")
            return found()[count - 1]


def run(*arguments: str, stdin: str = "", env: Mapping[str, str | None] | None = None) -> Ended:
    """Run a command to its end, with this on its standard input."""
    with Command(*arguments, env=env) as command:
        assert command.process.stdin
        command.process.stdin.write(stdin.encode())
        command.end_input()
        ended = command.end(60)
    assert "Traceback" not in ended.output, ended.output
    return ended

"""Lines of standard input, read beside other work.

`sys.stdin` does not serve: a thread that blocks in `sys.stdin` cannot be woken, and the interpreter
aborts if it ends meanwhile. `Lines` reads the file descriptor itself, and a pipe wakes the reading
thread.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

__all__ = ["Lines"]


class Lines:
    """Lines of a file descriptor.

    `get` returns a line; `feed` passes lines to a function in a thread of its own.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._data = b""
        self._end = False
        self._wake_r, self._wake_w = os.pipe()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def get(self) -> str | None:
        """The next line without its line end; None at the end of the input and after the
        closing."""
        raw = self.get_raw()
        return None if raw is None else raw.decode("utf-8", "surrogateescape").removesuffix("\r")

    def get_raw(self) -> bytes | None:
        """The next line as bytes, without its line end; None at the end."""
        while b"\n" not in self._data and not self._end:
            self._read_more()
        if self._stopped or not self._data:
            return None
        line, _, self._data = self._data.partition(b"\n")
        return line

    def _read_more(self) -> None:
        """Wait for bytes or for the closing. Empty bytes mark the end of the input."""
        try:
            readable, _, _ = select.select([self._fd, self._wake_r], [], [])
            chunk = b"" if self._wake_r in readable else os.read(self._fd, 65536)
        except (OSError, ValueError):
            # Standard input does not exist.
            chunk = b""
        self._data += chunk
        self._end = self._end or not chunk

    def feed(self, take: Callable[[str], None], ended: Callable[[], None]) -> None:
        """Call `take` with every line, and `ended` at the end of the input.

        The calls come from a new thread.
        """

        def work() -> None:
            while (line := self.get()) is not None:
                take(line)
            ended()

        self._thread = threading.Thread(target=work, name="trunkline-stdin", daemon=True)
        self._thread.start()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *exc: object) -> None:
        """Wake and join the reading thread, then close the pipe."""
        self._stopped = True
        os.write(self._wake_w, b"x")
        if self._thread is not None:
            self._thread.join(2)
        os.close(self._wake_r)
        os.close(self._wake_w)

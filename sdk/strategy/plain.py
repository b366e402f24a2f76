"""The screen without a terminal: a line for every row, and the status after a change."""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import IO, Any, Protocol

from trunkline.strategy.journal import Row
from trunkline.strategy.status import Block, Table, parse
from trunkline.strategy.text import Styled, style
from trunkline.system.columns import GAP, align_columns, measure_cells

__all__ = ["Output", "Plain", "Screen", "row_text", "stamp"]

STATUS_EVERY_S = 1.0
"""The least seconds between two statuses."""
ROWS_SHOWN = 50
"""The most rows of a table in the status."""


class Screen(Protocol):
    """The place that shows a strategy's output. All methods may be called from any thread."""

    def row(self, row: Row) -> None:
        """Show a log row."""

    def status(self, text: str) -> None:
        """Replace the status."""

    def profit(self, value: float) -> None:
        """Add a point of the profit curve that has no row."""

    def out(self, text: str) -> None:
        """Show a text that the script has printed."""

    def close(self) -> None:
        """Show the pending output and give the terminal back."""


class Output(io.TextIOBase):
    """Takes the place of `sys.stdout` in the script, so that printing and drawing do not mix."""

    def __init__(self, stream: IO[str], write: Callable[[str], None]) -> None:
        self._stream = stream
        self._write = write

    def write(self, text: str) -> int:
        self._write(text)
        return len(text)

    def flush(self) -> None:
        self._write("")

    def writable(self) -> bool:
        return True

    def __getattribute__(self, name: str) -> Any:
        # These attributes of the script's stdout (buffer, fileno, isatty, encoding) are those of
        # the real stream.
        if name in ("buffer", "encoding", "errors", "fileno", "isatty", "newlines", "name", "mode"):
            return getattr(super().__getattribute__("_stream"), name)
        return super().__getattribute__(name)


class Plain:
    """Prints lines on a stream.

    `broken`: called when the stream's reader has gone (`| head`).
    `complain`: called once when the stream cannot be written; a full disk does not end the
        strategy.

    A status that comes too soon after the previous status is shown later, by a thread: the script
    may be blocked in a read meanwhile.
    """

    def __init__(
        self,
        stream: IO[str],
        broken: Callable[[], None],
        complain: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._stream = stream
        self._broken = broken
        self._complain = complain
        self._failed = False
        self._lock = threading.RLock()
        self._pending: str | None = None
        self._shown: str | None = None
        self._at = -math.inf
        self._gone = False
        self._end = threading.Event()
        self._later: threading.Thread | None = None

    def row(self, row: Row) -> None:
        """Print a row, after a status that is due."""
        self._flush_status()
        self._put_text(row_text(row) + "\n")

    def status(self, text: str) -> None:
        """Show the status now, or later when it comes too soon after the previous status."""
        self._pending = text
        self._flush_status()
        if self._pending is not None and self._later is None:
            self._later = threading.Thread(
                target=self._flush_later, name="trunkline-status", daemon=True
            )
            self._later.start()

    def profit(self, value: float) -> None:
        """Do nothing: a point without a row has no text."""

    def out(self, text: str) -> None:
        """Print the script's own text. Only a line end flushes."""
        if text:
            self._put_text(text, flush="\n" in text)
        else:
            self._put_text("")

    def close(self) -> None:
        """End the thread for late statuses, and show the last status."""
        self._end.set()
        if self._later:
            self._later.join(5)
        self._flush_status(last=True)
        self._put_text("")

    def _flush_later(self) -> None:
        """Show pending statuses until the end. Runs on the thread `trunkline-status`."""
        while not self._end.wait(STATUS_EVERY_S / 4):
            self._flush_status()

    def _flush_status(self, *, last: bool = False) -> None:
        """Show the pending status, unless it is unchanged or comes too soon.

        `last`: show it at once.
        """
        with self._lock:
            text, now = self._pending, time.monotonic()
            if text is None or (now - self._at < STATUS_EVERY_S and not last):
                return
            self._pending = None
            if text == self._shown:
                return
            self._shown, self._at = text, now
        self._put_text(
            "".join(
                f"| {line}\n" for block in parse(text, ROWS_SHOWN) for line in block_lines(block)
            )
        )

    def _put_text(self, text: str, *, flush: bool = True) -> None:
        """Write a text. A gone reader, a closed stdout or a full disk does not raise."""
        try:
            with self._lock:
                if self._gone:
                    return
                self._write(text)
                if flush:
                    self._stream.flush()
        except BrokenPipeError:
            self._gone = True
            self._broken()
        except ValueError:
            # The script has closed its stdout.
            self._gone = True
        except OSError as error:
            failed, self._failed = self._failed, True
            if not failed:
                self._complain(
                    f"the output cannot be written ({error.strerror}); the strategy goes on"
                )

    def _write(self, text: str) -> None:
        """Write a text; characters that the stream's encoding lacks become escapes."""
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = getattr(self._stream, "encoding", None) or "ascii"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def stamp(at: float, *, date: bool = True) -> str:
    """A moment in local time, to the millisecond."""
    moment = datetime.fromtimestamp(at).isoformat(" ", "milliseconds")
    return moment if date else moment.partition(" ")[2]


def row_text(row: Row) -> str:
    """A row as lines. Later lines are indented, so that no text can pass for a row."""
    mark = {"log": "", "error": "ERROR ", "profit": "PROFIT "}[row.kind]
    return f"{stamp(row.at)}  {mark}{style(row.text).text}".replace("\n", "\n    ")


def block_lines(block: Block) -> list[str]:
    """A block of the status as plain lines."""
    if isinstance(block, Styled):
        return block.text.split("\n")
    return table_lines(block)


def table_lines(table: Table) -> list[str]:
    """A table as aligned columns, with a line of dashes below the heading."""
    rows = [table.columns]
    rows += [[cell.text.replace("\n", " ") for cell in row] for row in table.rows]
    columns = [list(column) for column in zip(*rows, strict=True)]
    widths = [measure_cells(column) for column in columns]
    lines = align_columns(columns, widths)
    lines.insert(1, GAP.join("-" * width for width in widths))
    if table.title:
        lines.insert(0, table.title)
    if table.hidden:
        lines.append(f"... {table.hidden} more rows")
    return lines

"""The screen on a terminal: rows scroll, and the status stays at the bottom.

The strategy's threads only append to queues; a single thread draws ten times a second. A log row
therefore costs the strategy a microsecond, and a stop never interrupts the drawing.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from typing import IO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from trunkline.strategy.journal import Row
from trunkline.strategy.plain import row_text, stamp
from trunkline.strategy.status import Block, Table, parse
from trunkline.strategy.text import Styled, clean, style

__all__ = ["LiveScreen", "draw_block", "sparkline"]

EVERY_S = 0.1
"""Seconds between two drawings."""
QUEUED = 2000
"""The most rows that wait to be drawn.

The screen skips the oldest rows beyond the limit; the log file does not.
"""
_COLOR = re.compile(r"(\x1b\[[0-9;]*m)")
_BARS = "▁▂▃▄▅▆▇█"


class LiveScreen:
    """Draws on a terminal until `close`."""

    def __init__(self, stream: IO[str]) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._live = Live(
            Text(""),
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._stream = stream
        self._pid = os.getpid()
        self._queue: deque[Row | str] = deque()
        self._skipped = 0
        self._status = ""
        self._drawn: tuple[str, int] | None = None
        self._profits: deque[float] = deque(maxlen=40)
        self._profit_count = 0
        self._part = ""
        self._end = threading.Event()
        self._live.start()
        self._thread = threading.Thread(
            target=self._draw_repeatedly, name="trunkline-screen", daemon=True
        )
        self._thread.start()

    def row(self, row: Row) -> None:
        """Queue a row for the drawing thread."""
        if row.value is not None:
            self.profit(row.value)
        if os.getpid() != self._pid:
            # A child that the script forked has no drawing thread. The child writes its rows
            # directly.
            self._stream.write(row_text(row) + "\n")
            self._stream.flush()
            return
        self._add_to_queue(row)

    def profit(self, value: float) -> None:
        self._profits.append(value)
        self._profit_count += 1

    def status(self, text: str) -> None:
        self._status = text

    def out(self, text: str) -> None:
        """Queue whole lines of the script's own output. An unfinished line waits for its end."""
        *lines, self._part = (self._part + text).split("\n")
        for line in lines:
            self._add_to_queue(line)

    def close(self) -> None:
        """Draw all queued items and end the drawing thread, for at most 5 seconds."""
        if self._part:
            self._add_to_queue(self._part)
        self._end.set()
        self._thread.join(5)

    def _add_to_queue(self, item: Row | str) -> None:
        """Queue an item for the drawing thread.

        Of too many items, the oldest are skipped and counted.
        """
        self._queue.append(item)
        if len(self._queue) > QUEUED:
            self._queue.popleft()
            self._skipped += 1

    def _draw_repeatedly(self) -> None:
        """Draw until `close`.

        Runs on the thread `trunkline-screen`.
        """
        try:
            while not self._end.wait(EVERY_S):
                self._draw_changes()
            self._draw_changes()
            self._live.stop()
        except (OSError, ValueError):
            # The terminal has gone. Rows still go to the log file.
            self._end.set()

    def _draw_changes(self) -> None:
        """Print queued rows above the status, and redraw the status after a change."""
        rows = self._take_rows()
        if rows:
            self._console.print(*rows, sep="\n", soft_wrap=True)
        state = (self._status, self._profit_count)
        if state != self._drawn:
            self._drawn = state
            self._live.update(self._draw_bottom(), refresh=True)

    def _take_rows(self) -> list[Text]:
        """Take all queued rows, after a note about skipped rows."""
        rows: list[Text] = []
        if self._skipped:
            rows.append(Text(f"... {self._skipped} rows not shown", style="dim"))
            self._skipped = 0
        while self._queue:
            item = self._queue.popleft()
            rows.append(draw_row(item) if isinstance(item, Row) else draw_print(item))
        return rows

    def _draw_bottom(self) -> RenderableType:
        """The status with the latest profit. The tables share the height of the terminal."""
        parts: list[RenderableType] = []
        blocks = parse(self._status, self._console.height)
        tables = sum(isinstance(block, Table) for block in blocks) or 1
        room = max(3, (self._console.height - len(blocks) - 3) // tables - 4)
        parts += [draw_block(block, room) for block in blocks]
        if self._profits:
            curve = list(self._profits)
            parts.append(Text(f"Profit {curve[-1]:g}  {sparkline(curve)}", style="cyan"))
        return Group(*parts)


def draw_row(row: Row) -> Text:
    """A row with its time; errors are red, profits cyan."""
    line = Text.assemble((stamp(row.at, date=False) + "  ", "dim"))
    styled = style(row.text)
    colors = {"log": "", "error": "red", "profit": "cyan"}
    mark = {"log": "", "error": "ERROR ", "profit": "PROFIT "}[row.kind]
    line.append(
        mark + styled.text.replace("\n", "\n    "), style=_rich_style(styled) or colors[row.kind]
    )
    return line


def draw_print(line: str) -> Text:
    """A printed line. The script's own colours stay; all other control characters are removed."""
    parts = _COLOR.split(line)
    return Text.from_ansi("".join(part if i % 2 else clean(part) for i, part in enumerate(parts)))


def draw_block(block: Block, room: int) -> RenderableType:
    """A block of the status; a table has at most `room` rows."""
    if isinstance(block, Styled):
        return Text(block.text, style=_rich_style(block))
    table = RichTable()
    for name in block.columns:
        table.add_column(Text(name))
    for row in block.rows[:room]:
        table.add_row(*(Text(cell.text, style=_rich_style(cell)) for cell in row))
    more = max(0, len(block.rows) - room) + block.hidden
    # The table's own title and caption would be wrapped to its width.
    above = [Text(block.title, style="bold")] if block.title else []
    below = [Text(f"... {more} more rows", style="dim")] if more else []
    return Group(*above, table, *below)


def sparkline(values: list[float]) -> str:
    """The values as bars between the lowest and the highest value."""
    low, high = min(values), max(values)
    step = (high - low) / (len(_BARS) - 1)
    return "".join(_BARS[round((value - low) / step) if step else 0] for value in values)


def _rich_style(styled: Styled) -> str:
    if styled.color is None:
        return ""
    return styled.color + (f" on {styled.background}" if styled.background else "")

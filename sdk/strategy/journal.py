"""The strategy's log: the newest rows in memory, all rows in a file if requested, and the last
error."""

from __future__ import annotations

import json
import logging
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trunkline.strategy.rowfile import RowFile

__all__ = ["Journal", "Relay", "Row"]

Kind = Literal["log", "error", "profit"]
KEPT = 2000
"""The number of rows kept in memory. A log file keeps every row."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the log.

    `at` is wall clock time in seconds; `value` is the profit of a profit row.
    """

    at: float
    kind: Kind
    text: str
    value: float | None = None

    def as_json(self, name: str | None = None) -> str:
        """A line of the log file. `name` is the run's name, if any."""
        fields: dict[str, object] = {
            "time": int(self.at * 1000),
            "type": self.kind,
            "text": self.text,
        }
        if name is not None:
            fields["name"] = name
        if self.value is not None:
            # JSON has no NaN and no infinity; the text shows the value.
            fields["value"] = self.value if math.isfinite(self.value) else None
        return json.dumps(fields, ensure_ascii=True)


class Journal:
    """Takes rows from any thread, stores them and passes them to `show`.

    `shield` keeps a stop from tearing a row. An error that matches a filter is neither shown nor
    stored. `take_last_error` returns such an error nevertheless: filters hide errors from people,
    not from programs.
    """

    def __init__(
        self,
        show: Callable[[Row], None],
        shield: AbstractContextManager[object],
        file: Path | None = None,
        name: str | None = None,
    ) -> None:
        self._show = show
        self._name = name
        self._shield = shield
        self._lock = threading.RLock()
        self._file = RowFile(file) if file else None
        self._filters: list[re.Pattern[str]] = []
        self._last_error: str | None = None
        self.rows: deque[Row] = deque(maxlen=KEPT)

    def add(self, kind: Kind, text: str, value: float | None = None) -> None:
        """Store and show a row."""
        row = Row(time.time(), kind, text, value)
        with self._shield, self._lock:
            self._store_row(row)
            self._show(row)

    def error(self, text: str) -> None:
        """Add an error row unless a filter matches.

        `take_last_error` returns `text` in any case.
        """
        self._last_error = text
        if not any(pattern.search(text) for pattern in self._filters):
            self.add("error", text)

    def record(self, kind: Kind, text: str) -> None:
        """Store a row that was shown in another way."""
        with self._shield, self._lock:
            self._store_row(Row(time.time(), kind, text))

    def filter(self, pattern: str) -> None:
        """Hide errors that match `pattern`, in addition to earlier patterns; "" removes all
        patterns."""
        if pattern:
            self._filters.append(re.compile(pattern))
        else:
            self._filters.clear()

    def take_last_error(self) -> str | None:
        """Return the text of the last error and forget it."""
        text, self._last_error = self._last_error, None
        return text

    def reset(self, remain: int = 0, *, profit: bool = False) -> None:
        """Keep only the newest `remain` rows.

        With `profit`, only profit rows are counted and removed.
        """
        with self._shield, self._lock:
            keep = _mark_newest([row.kind for row in self.rows], remain, profit)
            self.rows = deque(
                (row for row, kept in zip(self.rows, keep, strict=True) if kept), KEPT
            )
            if self._file:
                try:
                    self._file.keep(lambda lines: _keep_lines(lines, remain, profit))
                except OSError as error:
                    self._tell_trouble(
                        f"the log file cannot be rewritten ({error.strerror}); it stays as it is"
                    )

    def close(self) -> None:
        """Close the log file. Later rows are kept in memory only."""
        with self._shield, self._lock:
            if self._file:
                self._file.close()
                self._file = None

    def _store_row(self, row: Row) -> None:
        """Store a row in memory and in the file. The caller holds the lock."""
        self.rows.append(row)
        told = self._file.add(row.as_json(self._name)) if self._file else None
        if told is not None:
            self._tell_trouble(told)

    def _tell_trouble(self, text: str) -> None:
        """Show a trouble with the file. The file itself cannot have this row."""
        row = Row(time.time(), "error", text)
        self.rows.append(row)
        self._show(row)


def _keep_lines(lines: list[str], remain: int, profit: bool) -> list[str]:
    """The lines of the log file that stay."""
    keep = _mark_newest([_kind_of_line(line) for line in lines], remain, profit)
    return [line for line, stays in zip(lines, keep, strict=True) if stays]


class Relay(logging.Handler):
    """Shows Trunkline's own warnings and errors in the strategy's log, as error rows."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        """Add an error row for a record of the logger."""
        try:
            self._journal.error(record.getMessage())
        except Exception:
            self.handleError(record)


def _mark_newest(kinds: list[str], remain: int, profit: bool) -> list[bool]:
    """For every row, whether the row stays."""
    keep = []
    left = max(0, remain)
    for kind in reversed(kinds):
        if profit and kind != "profit":
            keep.append(True)
            continue
        keep.append(left > 0)
        left -= 1
    return keep[::-1]


def _kind_of_line(line: str) -> str:
    try:
        fields = json.loads(line)
    except ValueError:
        return ""
    return str(fields.get("type", "")) if isinstance(fields, dict) else ""

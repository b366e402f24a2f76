"""One connection as `ps` and `top` show it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.cli.brokers import Listing
from trunkline.cli.texts import age, amount, printable

__all__ = ["COLUMNS", "Row", "memory", "rows_of", "table_of"]


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of a connection. Rates are messages (of a database rows and statements) per second, None
    where unknown."""

    id: str
    broker: str
    scheme: str
    peer: str
    state: str
    pid: int
    uptime_s: float | None
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    rate_in: float | None
    rate_out: float | None
    buffered: int
    peak: int
    dropped: int
    skipped: int
    lag: int | None
    """Messages that the message broker has for it and that no reader has taken; None where unknown."""
    statements: int
    rows: int
    queries: int
    reconnects: int
    incarnation: int
    holders: int
    users: list[int]
    shared: bool
    responsive: bool
    memory: int | None
    """Bytes: the worker's share of memory (PSS) on Linux, resident size elsewhere."""
    last_error: str | None

    @property
    def incoming(self) -> int:
        """Messages, or rows of a database, so far."""
        return self.messages_in + self.rows

    @property
    def outgoing(self) -> int:
        """Messages, or statements of a database, so far."""
        return self.messages_out + self.statements


def rows_of(listing: Listing, now: float | None = None) -> list[Row]:
    """Every connection of every broker, with average rates."""
    at = time.time() if now is None else now
    return [_row(shown, broker.address, raw, at) for shown, broker, raw in listing.rows()]


def _row(shown: str, broker: str, raw: dict[str, Any], now: float) -> Row:
    opened = float(raw.get("opened_at") or 0)
    uptime = max(0.0, now - opened) if opened else None
    count = {name: int(raw.get(name) or 0) for name in _COUNTS}
    return Row(
        id=shown,
        broker=broker,
        scheme=str(raw.get("scheme", "")),
        peer=str(raw.get("peer", "")),
        state=str(raw.get("state", "")),
        uptime_s=uptime,
        rate_in=(count["messages_in"] + count["rows"]) / uptime if uptime else None,
        rate_out=(count["messages_out"] + count["statements"]) / uptime if uptime else None,
        users=[int(pid) for pid in raw.get("users", ())],
        shared=bool(raw.get("shared")),
        responsive=bool(raw.get("responsive", True)),
        lag=None if raw.get("lag") is None else int(raw["lag"]),
        memory=memory(count["pid"]) if count["pid"] else None,
        last_error=raw.get("last_error") or raw.get("reason"),
        **count,
    )


_COUNTS = (
    "pid", "messages_in", "messages_out", "bytes_in", "bytes_out", "buffered", "peak", "dropped", "skipped",
    "statements", "rows", "queries", "reconnects", "incarnation", "holders",
)  # fmt: skip


def memory(pid: int) -> int | None:
    """What a process costs, in bytes; None when it cannot be read."""
    if Path("/proc/self").exists():
        return _proc_memory(pid)
    try:
        answer = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, timeout=2
        )
        return int(answer.stdout) * 1024
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _proc_memory(pid: int) -> int | None:
    for name, mark in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            lines = Path(f"/proc/{pid}/{name}").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith(mark):
                return int(line.split()[1]) * 1024
    return None


def _state(row: Row) -> str:
    return row.state if row.responsive else f"{row.state}, hangs"


_Show = Callable[[Row], str]
COLUMNS: tuple[tuple[str, bool, _Show], ...] = (
    ("ID", False, lambda row: row.id),
    ("PEER", False, lambda row: printable(row.peer)),
    ("STATE", False, _state),
    ("PID", True, lambda row: str(row.pid or "-")),
    ("UP", True, lambda row: age(row.uptime_s)),
    ("IN", True, lambda row: amount(row.incoming)),
    ("OUT", True, lambda row: amount(row.outgoing)),
    ("IN/s", True, lambda row: amount(row.rate_in)),
    ("OUT/s", True, lambda row: amount(row.rate_out)),
    ("BUF", True, lambda row: amount(row.buffered)),
    ("DROP", True, lambda row: amount(row.dropped)),
    ("RECON", True, lambda row: amount(row.reconnects)),
    ("HELD BY", False, lambda row: ",".join(map(str, row.users)) or "-"),
    ("MEM", True, lambda row: "-" if row.memory is None else amount(row.memory / 1e6, "M")),
)
"""Heading, whether it is a number, and what is shown. Of a database IN counts rows, OUT statements."""


def table_of(rows: Iterable[Row]) -> list[str]:
    """The rows as aligned lines, headings first."""
    lines = [[name for name, _, _ in COLUMNS]] + [[show(row) for _, _, show in COLUMNS] for row in rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(COLUMNS))]
    right = [numeric for _, numeric, _ in COLUMNS]
    return [
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]

"""Connections as `ps` and `top` show them."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.cli.texts import age, amount, printable
from trunkline.proxy.brokers import Listing
from trunkline.system.columns import GAP, align_columns, measure_cells

__all__ = ["COLUMNS", "Row", "memory", "rows_of", "table_of"]


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of a connection.

    Rates are messages per second; for a database, rows and statements per second. None: unknown.
    """

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
    """Messages that the message broker holds for the connection and that no reader has taken; None:
    unknown."""
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
    """Bytes. On Linux the worker's proportional share of memory (PSS), elsewhere its resident
    size."""
    last_error: str | None

    @property
    def incoming(self) -> int:
        """The number of messages received; for a database, of rows."""
        return self.messages_in + self.rows

    @property
    def outgoing(self) -> int:
        """The number of messages sent; for a database, of statements."""
        return self.messages_out + self.statements


def rows_of(listing: Listing, now: float | None = None) -> list[Row]:
    """Every connection of every broker, with average rates."""
    at = time.time() if now is None else now
    return [_make_row(shown, broker.address, raw, at) for shown, broker, raw in listing.rows()]


def _make_row(shown: str, broker: str, raw: dict[str, Any], now: float) -> Row:
    """The row of a connection, from the broker's figures."""
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
    """The memory of a process in bytes; None when the system does not tell."""
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
    """Linux: the PSS of a process, or its resident size where the PSS may not be read."""
    for name, mark in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            lines = Path(f"/proc/{pid}/{name}").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith(mark):
                return int(line.split()[1]) * 1024
    return None


def _state_text(row: Row) -> str:
    return row.state if row.responsive else f"{row.state}, hangs"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table. `rank`: on short lines, columns of a high rank are left out first."""

    name: str
    numeric: bool
    rank: int
    show: Callable[[Row], str]


COLUMNS = (
    Column("ID", False, 0, lambda row: row.id),
    Column("PEER", False, 1, lambda row: printable(row.peer)),
    Column("STATE", False, 2, _state_text),
    Column("PID", True, 3, lambda row: str(row.pid or "-")),
    Column("UP", True, 9, lambda row: age(row.uptime_s)),
    Column("IN", True, 11, lambda row: amount(row.incoming)),
    Column("OUT", True, 12, lambda row: amount(row.outgoing)),
    Column("IN/s", True, 4, lambda row: amount(row.rate_in)),
    Column("OUT/s", True, 5, lambda row: amount(row.rate_out)),
    Column("BUF", True, 6, lambda row: amount(row.buffered)),
    Column("DROP", True, 7, lambda row: amount(row.dropped)),
    Column("RECON", True, 8, lambda row: amount(row.reconnects)),
    Column("HELD BY", False, 13, lambda row: ",".join(map(str, row.users)) or "-"),
    Column(
        "MEM", True, 10, lambda row: "-" if row.memory is None else amount(row.memory / 1e6, "M")
    ),
)
"""For a database, IN counts rows and OUT counts statements."""
LONGEST_HOST = 48
"""The longest scheme, host and port of a peer, in columns.

A longer one is cut; else only the path is cut.
"""
_PEER = 1
_PATH = re.compile(r"(?<=[^/:])[/?].*")


def table_of(rows: Iterable[Row], width: int | None = None) -> list[str]:
    """The rows as aligned lines, headings first, at most `width` columns wide (None: no limit).

    To fit, columns are left out by rank, and peers are cut. Ids and numbers are never cut.
    """
    columns = [[column.name] for column in COLUMNS]
    for row in rows:
        for cells, column in zip(columns, COLUMNS, strict=True):
            cells.append(column.show(row))
    hosts = [_PATH.sub("/…", peer) for peer in columns[_PEER]]
    widths = fit_columns([measure_cells(cells) for cells in columns], width, measure_cells(hosts))
    shown = sorted(widths)
    return align_columns(
        [columns[index] for index in shown],
        [widths[index] for index in shown],
        [COLUMNS[index].numeric for index in shown],
    )


def fit_columns(natural: list[int], width: int | None, hosts: int) -> dict[int, int]:
    """The columns that fit into `width`, with the width of each.

    Columns are taken by rank until a column does not fit; only the peers may be skipped. The first
    column is always taken. `hosts` is the width of the peers without their paths.
    """
    if width is None:
        return dict(enumerate(natural))
    taken: dict[int, int] = {}
    for index in sorted(range(len(natural)), key=lambda number: COLUMNS[number].rank):
        least = min(natural[index], hosts, LONGEST_HOST) if index == _PEER else natural[index]
        if taken and sum(taken.values()) + len(GAP) * len(taken) + least > width:
            if index == _PEER:
                # Ids alone would be useless where the states still fit.
                continue
            break
        taken[index] = least
    if _PEER in taken:
        left = width - sum(taken.values()) - len(GAP) * (len(taken) - 1)
        taken[_PEER] = min(natural[_PEER], taken[_PEER] + max(0, left))
    return taken

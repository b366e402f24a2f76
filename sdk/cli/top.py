"""`trunkline top`: every connection, live."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from trunkline.cli import OK
from trunkline.cli.rows import Row, rows_of, table_of
from trunkline.cli.texts import command_parser, moment, number, output_width
from trunkline.deadline import Deadline
from trunkline.proxy.brokers import Listing, listing

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY_S = 1.0


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "top",
        "Watch every connection of every broker of this user, the busiest first; q or Ctrl-C ends it.",
        "trunkline top\ntrunkline top -n 10 > figures.txt",
        "Rates are those of the last second. Where stdout is no terminal, a table is printed every second.\n",
    )
    made.add_argument("-n", "--count", type=number, metavar="COUNT", help="end after so many looks")
    return made


def run(options: argparse.Namespace) -> int:
    """Show all connections until the end: as a screen on a terminal, else as lines."""
    if sys.stdout.isatty():
        return _show_live(options.count)
    looks = _look_repeatedly(options.count, _sleep_on)
    for found, rows in looks:
        table = table_of(rows, output_width(sys.stdout))
        print(
            "\n".join([f"{moment(time.time())} {_summary_text(found, rows)}", *table, ""]),
            flush=True,
        )
    return OK


def _look_repeatedly(
    count: int | None, wait: Callable[[float], bool]
) -> Iterator[tuple[Listing, list[Row]]]:
    """Yield the listing and its rows every `EVERY_S` seconds.

    `wait` takes seconds and returns True to end.
    """
    before: dict[tuple[str, str], tuple[float, Row]] = {}
    done = 0
    while True:
        next_look = Deadline(EVERY_S)
        found = listing()
        now = time.monotonic()
        rows = rows_of(found)
        yield (
            found,
            sorted((_with_current_rates(row, now, before) for row in rows), key=_rank_by_rate),
        )
        before = {(row.broker, row.id): (now, row) for row in rows}
        done += 1
        if done == count or wait(next_look.left()):
            return


def _with_current_rates(
    row: Row, now: float, before: dict[tuple[str, str], tuple[float, Row]]
) -> Row:
    """The row with the rates since the previous look.

    Workers report their figures once a second.
    """
    then, old = before.get((row.broker, row.id), (now, row))
    passed = now - then
    if passed <= 0:
        return row
    received = max(0, row.incoming - old.incoming) / passed
    return replace(row, rate_in=received, rate_out=max(0, row.outgoing - old.outgoing) / passed)


def _rank_by_rate(row: Row) -> tuple[float, str]:
    """The key for sorting: the busiest connection first."""
    return -((row.rate_in or 0) + (row.rate_out or 0)), row.id


def _summary_text(found: Listing, rows: list[Row]) -> str:
    """The first line: connections, brokers, memory, and brokers that do not answer."""
    memory = sum(row.memory or 0 for row in rows) / 1e6
    text = f"{len(rows)} connections, {len(found.brokers)} brokers, {memory:.0f} MB in workers"
    return "; ".join([text, *found.complaints()])


def _show_live(count: int | None) -> int:
    """Show the screen until q is pressed, or `count` screens were shown."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    with _watch_keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        for found, rows in _look_repeatedly(count, pressed):
            live.update(_draw_screen(found, rows, console.width), refresh=True)
    return OK


def _draw_screen(found: Listing, rows: list[Row], width: int) -> RenderableType:
    """The screen: the summary and the table, with colours by state."""
    from rich.console import Group
    from rich.text import Text

    head = Text(
        f"trunkline top  {moment(time.time())}  {_summary_text(found, rows)}   (q ends)",
        style="bold",
    )
    heading, *lines = table_of(rows, width)
    drawn = [Text(heading.ljust(width), style="reverse", no_wrap=True, overflow="crop")]
    for row, line in zip(rows, lines, strict=True):
        color = {"open": "", "down": "yellow", "dialing": "yellow"}.get(row.state, "red")
        drawn.append(Text(line, style=color, no_wrap=True, overflow="crop"))
    return Group(head, Text(""), *drawn)


def _sleep_on(seconds: float) -> bool:
    """Wait without keys. Returns False: never the end."""
    time.sleep(seconds)
    return False


@contextlib.contextmanager
def _watch_keys() -> Iterator[Callable[[float], bool]]:
    """A function that waits some seconds and returns True if q was pressed.

    The terminal is restored at the end.
    """
    if not sys.stdin.isatty():
        yield _sleep_on
        return
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield (
            lambda seconds: (
                bool(select.select([fd], [], [], seconds)[0]) and os.read(fd, 1) in b"qQ"
            )
        )
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)

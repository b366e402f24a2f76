"""Figures as text for people, and parsers of arguments; shared by the commands."""

from __future__ import annotations

import argparse
import math
import os
import re
import time
from typing import Any, TextIO

__all__ = [
    "WIDE",
    "age",
    "amount",
    "command_parser",
    "moment",
    "number",
    "output_width",
    "printable",
    "seconds",
    "wants_color",
]

WIDE = 100_000
"""Columns of an output that is no terminal: no line is wrapped."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def command_parser(
    name: str, description: str, examples: str, after: str = ""
) -> argparse.ArgumentParser:
    """The parser of a command: the command's own help, with examples at the end."""
    lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    return argparse.ArgumentParser(
        prog=f"trunkline {name}",
        description=description,
        epilog=f"examples:\n{lines}\n" + (f"\n{after}" if after else ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def number(text: str) -> int:
    """Parse an argument that is a count: a whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be above zero")
    return value


def seconds(text: str) -> float:
    """Parse an argument in seconds: zero or more."""
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError("must be a number of seconds")
    return value


def amount(value: float | None, unit: str = "") -> str:
    """A figure with about four digits: 7, 950, 12.3k, 4.5M; "-" for None."""
    if value is None:
        return "-"
    for size, mark in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if mark == 'k' else size):.1f}{mark}{unit}"
    return f"{value:.0f}{unit}" if value >= 10 or value == int(value) else f"{value:.1f}{unit}"


def age(value: float | None) -> str:
    """Seconds as 12s, 3m05s, 2h07m, 3d04h; "-" for None."""
    if value is None:
        return "-"
    whole = int(value)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def moment(at: float) -> str:
    """A wall clock time of today, to the second."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def printable(text: Any) -> str:
    """Foreign text made safe for a terminal: control characters as escapes; tabs and line ends
    stay."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", str(text))


def wants_color(stream: TextIO) -> bool:
    """Whether a stream may get colors: a terminal with colors, and no NO_COLOR (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def output_width(stream: TextIO) -> int | None:
    """The columns of a line on this stream: the variable COLUMNS, else the terminal's width.

    None for a file or a pipe: lines then have any length.
    """
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None

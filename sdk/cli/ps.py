"""`trunkline ps`: every connection of every broker of this user, in any runtime folder."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from trunkline.cli import FAILED, OK
from trunkline.cli.rows import rows_of, table_of
from trunkline.cli.texts import command_parser, output_width
from trunkline.proxy.brokers import listing

_COLUMNS = """\
columns: IN and OUT are messages, IN/s and OUT/s their average; BUF is received and not yet read; DROP
was thrown away because the buffer was full; HELD BY are the processes that use the connection; MEM is the
worker's share of memory (PSS on Linux). All brokers of this user are shown, whatever runtime folder they
live in. With several an id is broker:id; it is a plain number for the only one that TRUNKLINE_BROKER or
TRUNKLINE_RUNTIME names. Where lines are short (the terminal's width, or COLUMNS) whole columns are left out;
--json has everything.
"""


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "ps",
        "List every connection of every broker of this user.",
        "trunkline ps\ntrunkline ps --json | jq '.[] | select(.dropped > 0)'",
        _COLUMNS,
    )
    made.add_argument("--json", action="store_true", help="a JSON list instead of a table")
    return made


def run(options: argparse.Namespace) -> int:
    """Print all connections; returns the exit code."""
    found = listing()
    rows = rows_of(found)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    elif rows:
        print("\n".join(table_of(rows, output_width(sys.stdout))))
    else:
        print(
            "no connections"
            if found.brokers or found.silent
            else "no connections: no broker is running"
        )
    sys.stdout.flush()
    for complaint in found.complaints():
        print(f"trunkline: {complaint}", file=sys.stderr)
    return FAILED if found.is_failed() else OK

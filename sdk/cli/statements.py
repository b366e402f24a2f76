"""`trunkline dial` on databases: statements in, tables out."""

from __future__ import annotations

import argparse
import base64
import json
import math
import sys
from collections.abc import Iterator
from typing import Any

from trunkline.cli import FAILED, OK
from trunkline.cli.lines import Lines
from trunkline.cli.texts import WIDE, printable
from trunkline.errors import BrokerGone, DeadHandle, StatementError, TrunklineError
from trunkline.proxy.connection import Connection

__all__ = ["plain_value", "run_statements"]


def run_statements(connection: Connection, options: argparse.Namespace, lines: Lines) -> int:
    """Execute every statement and show its result; returns 1 if a statement was refused."""
    code = OK
    for number, sql in enumerate(_read_statements(options.exec, lines), 1):
        try:
            result = connection.exec(sql)
            # A connection of `connect` raises instead of returning None.
            assert result is not None
            _print_result(result, as_json=options.json)
        except (DeadHandle, BrokerGone):
            raise
        except TrunklineError as error:
            code = FAILED
            _print_refusal(error, as_json=options.json)
        if number == options.count:
            break
    return code


def _read_statements(given: list[str], lines: Lines) -> Iterator[str]:
    """The statements of the arguments, or else the lines of standard input."""
    if given:
        yield from given
        return
    if sys.stdin is not None and sys.stdin.isatty():
        print("one statement per line; Ctrl-D ends", file=sys.stderr)
    while (line := lines.get()) is not None:
        if line.strip():
            yield line.strip()


def _print_refusal(error: TrunklineError, *, as_json: bool) -> None:
    """Print why a statement was refused: to stderr, and with --json also to stdout."""
    sys.stdout.flush()
    print(f"trunkline: {error}", file=sys.stderr)
    if as_json:
        code = error.code if isinstance(error, StatementError) else None
        print(json.dumps({"error": str(error), "code": code}), flush=True)


def _print_result(result: dict[str, Any], *, as_json: bool) -> None:
    """Print a result: JSON, tables, or the number of affected rows."""
    if as_json:
        print(json.dumps(plain_value(result), ensure_ascii=False))
    elif result["columns"]:
        for result_set in (result, *result.get("more", ())):
            _print_result_set(result_set)
    else:
        affected = result.get("affected")
        print(
            "done"
            if affected is None
            else f"done, {affected} row{'' if affected == 1 else 's'} affected"
        )
    sys.stdout.flush()


def _print_result_set(result: dict[str, Any]) -> None:
    """Print a table of rows and their number."""
    from rich.text import Text

    from trunkline.cli.console import CommandConsole

    rows = result["values"]
    heading = [printable(name) for name in result["columns"]]
    numeric = [
        all(isinstance(row[index], (int, float)) for row in rows) for index in range(len(heading))
    ]
    cells = ([Text(_cell_text(value)) for value in row] for row in rows)
    CommandConsole(width=WIDE).print_table(heading, cells, numeric)
    print(f"{len(rows)} row{'' if len(rows) == 1 else 's'}")


def _cell_text(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return printable(value)


def plain_value(value: Any) -> Any:
    """A result in the form of JSON: bytes as base64 under "bytes", foreign types as text."""
    if isinstance(value, float) and not math.isfinite(value):
        # JSON has no NaN and no infinity.
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain_value(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)

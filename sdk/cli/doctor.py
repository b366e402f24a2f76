"""`trunkline doctor`: does everything work on this machine, and what to do where it does not."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from trunkline.cli import FAILED, OK
from trunkline.cli.findings import Finding, fail, machine
from trunkline.cli.texts import command_parser, wants_color


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "doctor",
        "Check versions, the runtime folder, limits and leftovers; start a private broker and dial.",
        "trunkline doctor\ntrunkline doctor --json | jq '.[] | select(.status != \"ok\")'",
        "exit codes: 0 nothing failed (warnings are no failure), 1 something did\n",
    )
    made.add_argument("--json", action="store_true", help="a JSON list instead of lines")
    return made


def run(options: argparse.Namespace) -> int:
    found = []
    for finding in _findings():
        found.append(finding)
        if not options.json:
            print("\n".join(_lines(finding, color=wants_color(sys.stdout))), flush=True)
    if options.json:
        print(json.dumps([finding.plain() for finding in found], indent=1))
    return FAILED if any(finding.status == "FAIL" for finding in found) else OK


def _findings() -> Iterator[Finding]:
    """What is there first, then what works: a check that itself breaks is a finding too."""
    yield from machine()
    from trunkline.cli.trials import trials

    try:
        yield from trials()
    except Exception as error:
        yield fail("trial", f"{type(error).__name__}: {error}", "please report this line")


_COLORS = {"ok": "32", "warn": "33", "FAIL": "1;31"}


def _lines(finding: Finding, *, color: bool) -> Iterator[str]:
    status = f"{finding.status:<4}"
    if color:
        status = f"\x1b[{_COLORS[finding.status]}m{status}\x1b[0m"
    yield f"{status}  {finding.name:<16} {finding.text}"
    if finding.hint:
        yield f"{'':<22} -> {finding.hint}"

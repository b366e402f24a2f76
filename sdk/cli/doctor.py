"""`trunkline doctor`: checks whether everything works on this machine, and says how to mend the
rest."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator

from trunkline.cli import FAILED, OK
from trunkline.cli.findings import Finding, fail, machine
from trunkline.cli.texts import WIDE, command_parser


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
    """Look, try and report; returns 1 if a finding is FAIL."""
    found = []
    show = _ignore_finding if options.json else _make_printer()
    for finding in _find_all():
        found.append(finding)
        show(finding)
    if options.json:
        print(json.dumps([finding.plain() for finding in found], indent=1))
    return FAILED if any(finding.status == "FAIL" for finding in found) else OK


def _find_all() -> Iterator[Finding]:
    """The findings about the machine, then the findings of trials.

    A crash of the trials is a finding too.
    """
    yield from machine()
    from trunkline.cli.trials import trials

    try:
        yield from trials()
    except Exception as error:
        yield fail("trial", f"{type(error).__name__}: {error}", "please report this line")


_STYLES = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}


def _ignore_finding(finding: Finding) -> None:
    """Show nothing: with --json the output comes at the end."""


def _make_printer() -> Callable[[Finding], None]:
    """A function that prints a finding at once, because the next finding may take seconds."""
    from rich.text import Text

    from trunkline.cli.console import CommandConsole

    console = CommandConsole(width=WIDE)

    def print_finding(finding: Finding) -> None:
        line = Text.assemble(
            (f"{finding.status:<4}", _STYLES[finding.status]),
            f"  {finding.name:<16} {finding.text}",
        )
        if finding.hint:
            line.append(f"\n{'':<22} -> {finding.hint}")
        console.print(line, soft_wrap=True)
        sys.stdout.flush()

    return print_finding

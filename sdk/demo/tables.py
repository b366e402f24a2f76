"""The tables and the verdict at the end of a demo."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from trunkline.cli.console import CommandConsole
from trunkline.demo.report import Check

__all__ = ["Tables"]

WIDTH = 140
"""Columns of plain output: the width of the widest table."""


class Tables:
    """Prints on standard output: boxes on a terminal, ASCII when `plain`."""

    def __init__(self, *, plain: bool) -> None:
        self.console = CommandConsole(width=WIDTH, plain=plain)

    def table(self, heading: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
        """Print a table. The first column is text, all other columns are figures."""
        texts = ([Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
        self.console.print_table(heading, texts, [index > 0 for index in range(len(heading))])

    def checks(self, checks: Iterable[Check]) -> None:
        self.table(("checked", "", ""), [_make_check_row(check) for check in checks])

    def verdict(self, checks: Iterable[Check]) -> None:
        wrong = [check.text for check in checks if not check.holds]
        if wrong:
            self.console.print(Text.assemble(("DIFFERENCE", "bold red"), ": ", "; ".join(wrong)))
        else:
            self.console.print(Text.assemble(("OK", "bold green"), ": all figures add up"))


def _make_check_row(check: Check) -> tuple[str, str, Text]:
    if check.holds:
        return check.text, f"{check.left} = {check.right}", Text("ok", "green")
    return check.text, f"{check.left} and {check.right}", Text("DIFFERS", "bold red")

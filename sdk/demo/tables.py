"""The tables and the verdict at the end of a demo."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trunkline.demo.report import Check

__all__ = ["Tables"]


class Tables:
    """Prints on standard output: boxes on a terminal, ASCII when `plain`."""

    def __init__(self, *, plain: bool) -> None:
        from rich import box
        from rich.console import Console

        self.console = Console(highlight=False, width=140 if plain else None, no_color=plain or None)
        self._frame = box.ASCII if plain else box.ROUNDED

    def table(self, heading: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """One table; the first column is text, the others are figures."""
        from rich.table import Table

        table = Table(box=self._frame)
        for index, name in enumerate(heading):
            table.add_column(name, justify="left" if index == 0 else "right")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def checks(self, checks: Iterable[Check]) -> None:
        self.table(("checked", "", ""), [_check_row(check) for check in checks])

    def verdict(self, checks: Iterable[Check]) -> None:
        wrong = [check.text for check in checks if not check.holds]
        self.console.print(
            "[bold red]DIFFERENCE[/]: " + "; ".join(wrong)
            if wrong
            else "[bold green]OK[/]: all figures add up"
        )


def _check_row(check: Check) -> tuple[str, str, str]:
    if check.holds:
        return check.text, f"{check.left} = {check.right}", "[green]ok[/]"
    return check.text, f"{check.left} and {check.right}", "[bold red]DIFFERS[/]"

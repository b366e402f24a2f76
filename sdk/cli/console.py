"""The console for boxes and colours, by rich.

Import this module only where a command prints boxes or colours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trunkline.cli.texts import wants_color

__all__ = ["CommandConsole"]


class CommandConsole(Console):
    """Standard output with colours, if the terminal has colours and NO_COLOR is not set.

    `plain`: without colours, and with boxes in ASCII; None: plain unless standard output is a
        terminal.
    `width`: the columns of plain output.
    """

    def __init__(self, *, width: int, plain: bool | None = None) -> None:
        self.plain = not sys.stdout.isatty() if plain is None else plain
        has_colors = wants_color(sys.stdout) and not self.plain
        super().__init__(
            file=sys.stdout,
            highlight=False,
            width=width if self.plain else None,
            color_system="auto" if has_colors else None,
        )

    def print_table(
        self, heading: Sequence[str], rows: Iterable[Sequence[Text]], to_right: Sequence[bool]
    ) -> None:
        """Print a table in a box; `to_right` says for every column whether its cells stand at the
        right side."""
        table = Table(box=box.ASCII if self.plain else box.ROUNDED)
        for name, side in zip(heading, to_right, strict=True):
            table.add_column(Text(name), justify="right" if side else "left")
        for row in rows:
            table.add_row(*row)
        self.print(table)

    def on_broken_pipe(self) -> NoReturn:
        """A gone reader is no failure: `main` ends the command quietly. rich's own handler would
        exit with 1."""
        raise BrokenPipeError

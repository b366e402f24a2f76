"""Aligned columns of text, for lines without boxes and colours.

Widths are those of a terminal, measured by rich: a wide character takes two cells. rich's own
`Table` would take a millisecond for a row of `ps`, which is too slow for a strategy that writes a
table each second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size

__all__ = ["GAP", "align_columns", "measure_cells"]

GAP = "  "
"""The space between two columns."""


def measure_cells(texts: Iterable[str]) -> int:
    """The terminal cells of the longest text; 0 without any text."""
    return max(map(cell_len, texts), default=0)


def align_columns(
    columns: Sequence[Sequence[str]], widths: Sequence[int], to_right: Sequence[bool] | None = None
) -> list[str]:
    """Make lines from columns of equal length, without spaces at the line ends.

    `widths`: the cells of each column; a longer text is cut. `to_right`: which columns are aligned
    to the right, by default none.
    """
    sides = to_right if to_right is not None else [False] * len(columns)
    aligned = [
        [_fit_text(text, width, side) for text in column]
        for column, width, side in zip(columns, widths, sides, strict=True)
    ]
    return [GAP.join(line).rstrip() for line in zip(*aligned, strict=True)]


def _fit_text(text: str, width: int, to_right: bool) -> str:
    """Pad a text to `width` cells, or cut it and end it with an ellipsis."""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…"
    spaces = " " * (width - length)
    return spaces + text if to_right else text + spaces

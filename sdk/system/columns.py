"""Aligned columns of text, for lines without boxes and colours.

Widths are those of a terminal, by rich: a wide character takes two cells. The lines are not put together by
rich's `Table`: it takes a millisecond for a row of `ps`, and a strategy may write such a table each second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size

__all__ = ["GAP", "align_columns", "measure_cells"]

GAP = "  "
"""Stands between two columns."""


def measure_cells(texts: Iterable[str]) -> int:
    """How many cells of a terminal the longest of the texts takes; 0 for none."""
    return max(map(cell_len, texts), default=0)


def align_columns(
    columns: Sequence[Sequence[str]], widths: Sequence[int], to_right: Sequence[bool] | None = None
) -> list[str]:
    """Lines from columns of equal length, without spaces at their ends. A text that is longer than its
    column's width is cut. `to_right` says which columns stand at the right side, by default none."""
    sides = to_right if to_right is not None else [False] * len(columns)
    aligned = [
        [_fit_text(text, width, side) for text in column]
        for column, width, side in zip(columns, widths, sides, strict=True)
    ]
    return [GAP.join(line).rstrip() for line in zip(*aligned, strict=True)]


def _fit_text(text: str, width: int, to_right: bool) -> str:
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…"
    spaces = " " * (width - length)
    return spaces + text if to_right else text + spaces

"""The grammar of LogStatus: text with JSON between backticks, parsed into blocks for a screen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from trunkline.strategy.text import Styled, style

__all__ = ["Block", "Table", "parse"]

_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Table:
    """A table. `tab`: the table was one of several tabs, drawn below each other.

    `hidden`: the rows left out.
    """

    title: str
    columns: list[str]
    rows: list[list[Styled]] = field(default_factory=list)
    tab: bool = False
    hidden: int = 0


Block = Styled | Table


def parse(text: str, most: int = 10_000) -> list[Block]:
    """The blocks of a status text, in order. Malformed JSON is shown as text.

    Only the first `most` rows of a table are read: a market has thousands of rows, and a screen
    shows fifty.
    """
    blocks: list[Block] = []
    rest = ""
    for piece in _split_pieces(text):
        drawn = _read_blocks(piece, most) if not isinstance(piece, str) else None
        if drawn is None:
            rest += piece if isinstance(piece, str) else f"`{json.dumps(piece)}`"
            continue
        blocks += _read_lines(rest)
        rest = ""
        blocks += drawn
    return blocks + _read_lines(rest)


def _split_pieces(text: str) -> Iterator[Any]:
    """The pieces of a text: plain text as `str`, JSON between backticks as its value."""
    at = 0
    while (tick := text.find("`", at)) >= 0:
        found = _json_at(text, tick + 1)
        yield text[at:tick]
        at = tick + 1
        if found is None:
            yield "`"
        else:
            value, at = found
            yield value
    yield text[at:]


def _json_at(text: str, start: int) -> tuple[Any, int] | None:
    """The JSON value at `start` and the position after its backtick; None for other text."""
    if text[start : start + 1] not in ("{", "["):
        return None
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return (value, end + 1) if text[end : end + 1] == "`" else None


def _read_blocks(value: object, most: int) -> list[Block] | None:
    """The blocks of a JSON value: a table, several tabs, or a cell; None for other values."""
    if isinstance(value, list) and value and all(_is_table(item) for item in value):
        return [_read_table(item, most, tab=len(value) > 1) for item in value]
    if _is_table(value):
        return [_read_table(value, most, tab=False)]
    if isinstance(value, dict) and "type" in value:
        return [_read_cell(value)]
    return None


def _is_table(value: object) -> bool:
    return isinstance(value, dict) and value.get("type") == "table"


def _read_table(value: Any, most: int, *, tab: bool) -> Table:
    """A table of a JSON value, with at most `most` rows.

    Short rows are filled up with empty cells.
    """
    columns = [style(str(name)).text for name in _as_list(value.get("cols"))]
    given = _as_list(value.get("rows"))
    rows = _place_cells([_as_list(row) for row in given[:most]])
    width = max((len(row) for row in rows), default=0)
    columns += [""] * (width - len(columns))
    for row in rows:
        row += [Styled("")] * (len(columns) - len(row))
    title = style(str(value.get("title") or "")).text
    return Table(title, columns, rows, tab, hidden=len(given) - len(rows))


def _place_cells(rows: list[list[Any]]) -> list[list[Styled]]:
    """The cells in their columns.

    A merged cell is shown in its first place; its other places stay empty.
    """
    taken: dict[tuple[int, int], bool] = {}
    grid: list[list[Styled]] = []
    for y, row in enumerate(rows):
        line: list[Styled] = []
        for cell in row:
            while taken.get((y, len(line))):
                line.append(Styled(""))
            down, across = _read_span(cell, "rowspan"), _read_span(cell, "colspan")
            x = len(line)
            taken.update({(y + i, x + j): True for i in range(1, down) for j in range(across)})
            line += [_read_cell(cell), *[Styled("")] * (across - 1)]
        grid.append(line)
    return grid


def _read_span(cell: object, name: str) -> int:
    """The rows or columns that a merged cell covers, at most 100."""
    span = cell.get(name) if isinstance(cell, dict) else None
    return min(span, 100) if isinstance(span, int) and span > 1 else 1


def _read_cell(value: Any) -> Styled:
    """A cell: a dict, a list of parts, or a plain value."""
    if isinstance(value, dict):
        return _dict_cell(value)
    if isinstance(value, list):
        return Styled(" ".join(_read_cell(item).text for item in value))
    return style("" if value is None else str(value))


def _dict_cell(value: dict[str, Any]) -> Styled:
    """A cell from a dict: its body, a button as text, or JSON."""
    if "body" in value:
        return _read_cell(value["body"])
    if value.get("type") == "button":
        return Styled(f"[{style(str(value.get('name') or value.get('cmd') or 'button')).text}]")
    return style(json.dumps(value, ensure_ascii=False, default=str))


def _as_list(value: object) -> list[Any]:
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def _read_lines(text: str) -> list[Block]:
    """The lines of a text, as a block each."""
    text = text.strip("\n")
    return [style(line) for line in text.split("\n")] if text else []

"""What a log or status text becomes, on a terminal and without one."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from trunkline.strategy.journal import Row
from trunkline.strategy.live import draw_block, draw_print, draw_row, sparkline
from trunkline.strategy.plain import block_lines, row_text
from trunkline.strategy.status import Table, parse
from trunkline.strategy.text import Styled, clean, join, style


def _table(**changes: Any) -> dict[str, Any]:
    return {"type": "table", "title": "T", "cols": ["a", "b"], "rows": [["1", "2"]], **changes}


def _parsed(value: object) -> Table:
    block = parse(f"`{json.dumps(value)}`")[0]
    assert isinstance(block, Table)
    return block


def _texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


@pytest.mark.parametrize(
    ("raw", "styled"),
    [
        ("plain", Styled("plain")),
        ("red#ff0000", Styled("red", "#ff0000")),
        ("ping #FF0000", Styled("ping", "#FF0000")),
        ("both#ff0000@", Styled("both", "#ff0000")),
        ("two#ff000000ff00", Styled("two", "#ff0000", "#00ff00")),
        ("pushed@", Styled("pushed")),
        ("private &", Styled("private")),
        ("a@b", Styled("a@b")),
        ("short #12345", Styled("short #12345")),
        ("in #ff0000 the middle", Styled("in #ff0000 the middle")),
        ("", Styled("")),
        ("#ff0000", Styled("", "#ff0000")),
    ],
)
def test_marks_at_the_end_of_a_text_are_read(raw: str, styled: Styled) -> None:
    assert style(raw) == styled


def test_an_image_is_shown_as_a_note() -> None:
    assert style("see `data:image/png;base64,AAAA` here").text == "see [png image, 3 bytes] here"


@pytest.mark.parametrize(
    ("language", "shown"), [("zh_CN.UTF-8", "中文"), ("en_US.UTF-8", "abc"), ("", "abc")]
)
def test_a_translated_text_follows_the_language(
    monkeypatch: pytest.MonkeyPatch, language: str, shown: str
) -> None:
    monkeypatch.setenv("LC_ALL", language)
    monkeypatch.setenv("LC_MESSAGES", "")
    monkeypatch.setenv("LANG", "")
    assert style("[trans]中文|abc[/trans]!").text == f"{shown}!"


@pytest.mark.parametrize(
    "evil",
    [
        "\x1b[2J\x1b[31mx",
        "\x1b]0;title\x07x",
        "\x1b]52;c;aGk=\x1b\\x",
        "\x9b31mx",
        "\x07x",
        "x\u202e",
        "\x1bcx",
    ],
)
def test_nothing_that_steers_a_terminal_gets_through(evil: str) -> None:
    text = clean(evil)
    assert text.endswith("x")
    assert text.isprintable()


@given(st.text())
def test_cleaned_text_holds_no_control_character(text: str) -> None:
    assert not [
        c for c in clean(text) if (ord(c) < 32 and c not in "\t\n") or 0x7F <= ord(c) < 0xA0
    ]


def test_values_are_joined_by_one_space_and_a_table_becomes_its_json() -> None:
    assert join(["a", 1, None, True]) == "a 1 None True"
    assert _parsed(json.loads(join([_table()])[1:-1])).title == "T"
    assert join([{"type": "table", "cols": []}]) == "{'type': 'table', 'cols': []}"


def test_a_status_is_text_and_tables_in_their_order() -> None:
    first, table, last = parse(f"one#ff0000\n`{json.dumps(_table())}`\ntwo")
    assert first == Styled("one", "#ff0000")
    assert table == Table("T", ["a", "b"], [[Styled("1"), Styled("2")]])
    assert last == Styled("two")


def test_an_array_of_tables_is_shown_one_below_the_other() -> None:
    blocks = parse(f"`{json.dumps([_table(title='A'), _table(title='B')])}`")
    assert [(block.title, block.tab) for block in blocks if isinstance(block, Table)] == [
        ("A", True),
        ("B", True),
    ]


def test_cells_may_be_coloured_buttons_lists_and_merged() -> None:
    button = {"type": "button", "name": "Close", "cmd": "close"}
    rows = [
        ["x#00ff00", button],
        [[button, {**button, "name": "Buy"}], None],
        [{"body": "wide", "colspan": 2}],
    ]
    table = _parsed(_table(rows=rows))
    assert table.rows[0] == [Styled("x", "#00ff00"), Styled("[Close]")]
    assert _texts(table)[1:] == [["[Close] [Buy]", ""], ["wide", ""]]


def test_a_cell_over_two_rows_leaves_its_place_below_empty() -> None:
    table = _parsed(_table(rows=[[{"body": "tall", "rowspan": 2}, "1"], ["2"]]))
    assert _texts(table) == [["tall", "1"], ["", "2"]]


def test_rows_of_unequal_length_are_filled_up() -> None:
    table = _parsed(_table(rows=[["1"], ["1", "2", "3"]]))
    assert table.columns == ["a", "b", ""]
    assert _texts(table) == [["1", "", ""], ["1", "2", "3"]]


@pytest.mark.parametrize(
    "text", ["`not json`", "`{broken`", "``", "`", "a ` b", "`[1, 2]`", '`{"a": 1}`']
)
def test_what_is_no_table_is_shown_as_it_is(text: str) -> None:
    assert parse(text) == [Styled(text)]


def test_a_backtick_inside_a_cell_does_not_end_the_table() -> None:
    assert _texts(_parsed(_table(rows=[["a`b", "2"]]))) == [["a`b", "2"]]


@given(
    st.text() | st.recursive(st.none() | st.text(), lambda inner: st.lists(inner)).map(json.dumps)
)
def test_any_status_can_be_parsed_and_drawn(text: str) -> None:
    for block in parse(text) + parse(
        f'`{{"type":"table","cols":[1],"rows":[{json.dumps(text)},{text}]}}`'
    ):
        assert block_lines(block) is not None
        Console(file=io.StringIO(), width=80).print(draw_block(block, 3))


def test_a_table_without_a_terminal_is_aligned_columns() -> None:
    rows = [["中文", "x"], ["y", "long value"]] + [["n", str(n)] for n in range(60)]
    lines = block_lines(parse(f"`{json.dumps(_table(rows=rows))}`", 50)[0])
    assert lines[:5] == ["T", "a     b", "----  ----------", "中文  x", "y     long value"]
    assert lines[-1] == "... 12 more rows"


def test_a_text_cannot_pass_for_another_row() -> None:
    row = Row(0.0, "log", "one\n2026-01-01 00:00:00.000  forged")
    assert row_text(row).splitlines()[1] == "    2026-01-01 00:00:00.000  forged"


def _rendered(item: Any) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system="truecolor", width=80)
    console.print(item)
    return file.getvalue()


def test_a_row_on_a_terminal_has_its_colours_and_no_markup() -> None:
    drawn = _rendered(draw_row(Row(0.0, "log", "[red]x[/red] \x1b[2J#010203")))
    assert "[red]x[/red]" in drawn
    assert "38;2;1;2;3" in drawn
    assert "\x1b[2J" not in drawn


def test_errors_and_profits_are_marked() -> None:
    assert "ERROR boom" in _rendered(draw_row(Row(0.0, "error", "boom")))
    assert "PROFIT 1.5" in _rendered(draw_row(Row(0.0, "profit", "1.5", 1.5)))


def test_a_printed_line_keeps_its_colours_and_nothing_else() -> None:
    drawn = _rendered(draw_print("\x1b[31mred\x1b[0m \x1b[2J\x1b]0;t\x07end"))
    assert "\x1b[31mred" in drawn
    assert "\x1b[2J" not in drawn
    assert "\x1b]" not in drawn


def test_a_long_table_is_cut_to_the_room_there_is() -> None:
    table = _parsed(_table(rows=[[str(n), "x"] for n in range(10)]))
    drawn = _rendered(draw_block(table, 4))
    assert "... 6 more rows" in drawn
    assert "│ 3" in drawn
    assert "│ 4" not in drawn


def test_the_profit_curve_goes_from_low_to_high() -> None:
    assert sparkline([0, 7, 3.5]) == "▁█▅"
    assert sparkline([2, 2]) == "▁▁"

"""Boxes, colours and aligned columns: what reaches a terminal, a pipe, and a reader that has gone."""

from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from trunkline.cli import doctor
from trunkline.cli.console import CommandConsole
from trunkline.cli.findings import fail
from trunkline.system.columns import GAP, align_columns, measure_cells


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _colors(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def print_finding(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(doctor, "_find_all", lambda: iter([fail("[red]x", "y " * 100, "[z]")]))
    assert doctor.run(doctor.parser().parse_args([])) == 1
    return stream.getvalue()


def test_the_doctor_has_colours_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = print_finding(monkeypatch, io.StringIO())
    assert plain == f"FAIL  [red]x           {'y ' * 100}\n{' ' * 22} -> [z]\n"
    colored = print_finding(monkeypatch, Terminal())
    assert colored == plain.replace("FAIL", "\x1b[1;31mFAIL\x1b[0m")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert print_finding(monkeypatch, io.StringIO()) == plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert print_finding(monkeypatch, Terminal()) == plain


def test_a_table_is_drawn_for_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stdout", stream)
        CommandConsole(width=100).print_table(
            ["[a]", "b"], [[Text("x"), Text("10")]], [False, True]
        )
        shown.append(stream.getvalue())
    assert "╭" in shown[0]
    assert shown[1].isascii()
    assert all("[a]" in each for each in shown)


def test_a_reader_that_has_gone_is_told_to_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(BrokenPipeError):
        CommandConsole(width=100).print("x")


@given(
    st.integers(1, 4).flatmap(
        lambda count: st.lists(
            st.tuples(*[st.text("ab中é", max_size=6)] * count), min_size=1, max_size=4
        )
    ),
    st.integers(1, 12),
)
def test_columns_begin_below_each_other_and_are_cut_where_they_are_too_long(
    rows: list[tuple[str, ...]], most: int
) -> None:
    columns = list(zip(*rows, strict=True))
    natural = [measure_cells(column) for column in columns]
    widths = [min(width, most) for width in natural]
    lines = align_columns([*columns, ["|"] * len(rows)], [*widths, 1])
    assert {cell_len(line) for line in lines} == {sum(widths) + len(GAP) * len(widths) + 1}
    for line, row in zip(lines, rows, strict=True):
        assert all(cell in line or cell_len(cell) > most for cell in row)


def test_figures_stand_at_the_right() -> None:
    assert align_columns([["a", "bc"], ["7", "10"]], [2, 3], [False, True]) == [
        "a     7",
        "bc   10",
    ]

"""Results with several sets of rows, and rows that are fetched bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from trunkline.actors import driver
from trunkline.actors.results import FIRST_ROWS, Result, ResultRows, Rows
from trunkline.errors import StatementError


class Counted(Rows):
    """Rows with one number each, up to `count`."""

    def __init__(self, count: int, first: int = 0) -> None:
        self.columns = ["n"]
        self.left = [[number] for number in range(first, first + count)]
        self.is_closed = False

    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        found, self.left = self.left[:count], self.left[count:]
        return found

    def close(self) -> None:
        self.is_closed = True


def test_the_first_set_is_the_results_own() -> None:
    result, rest = Result(), Counted(3, 1)
    result.add_set(["n"], [[0]], rest)
    assert (result.columns, result.values, result.rest, result.more) == (["n"], [[0]], rest, [])


def test_every_other_set_is_read_to_its_end() -> None:
    result, first, second = Result(), Counted(100, 1), Counted(FIRST_ROWS, 1)
    result.add_set(["n"], [[0]], first)
    result.add_set(["m"], [[0]], second)
    result.add_set(["k"], [], None)
    assert result.rest is None
    assert len(result.values) == 101
    assert [(each.columns, len(each.values)) for each in result.more] == [
        (["m"], FIRST_ROWS + 1),
        (["k"], 0),
    ]
    assert first.is_closed
    assert second.is_closed


def test_the_rows_of_a_result_come_from_its_first() -> None:
    rest = Counted(3, 2)
    rows = ResultRows(Result(["n"], [[0], [1]], rest=rest))
    assert rows.columns == ["n"]
    assert list(rows.fetch(1)) == [[0]]
    assert list(rows.fetch(3)) == [[1], [2], [3]]
    assert list(rows.fetch(9)) == [[4]]
    assert list(rows.fetch(9)) == []
    rows.close()
    assert rest.is_closed


def test_rows_that_are_given_up_are_gone() -> None:
    rows = ResultRows(Result(["n"], [[0]]))
    rows.close()
    assert list(rows.fetch(1)) == []


def test_a_query_gives_the_rows_of_one_set() -> None:
    result = Result(["n"], [[0]], more=[Result(["m"])])
    with pytest.raises(StatementError, match="gave 2 result sets"):
        ResultRows(result)


@pytest.mark.parametrize("name", driver.__all__)
def test_the_promised_names_are_in_the_drivers_module(name: str) -> None:
    assert getattr(driver, name)

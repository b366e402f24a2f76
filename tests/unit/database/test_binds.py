"""What a list means among the values of a statement."""

from __future__ import annotations

from datetime import UTC, time
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.database.binds import (
    arranged,
    expanded,
    has_containers,
    has_lists_for,
    in_order,
    misplaced,
    of_day,
    sites,
    spread,
)
from trunkline.errors import StatementError
from trunkline.sqltext import Dialect

SQLITE, MYSQL, POSTGRES, CLICKHOUSE, STANDARD = Dialect
PLAIN = st.none() | st.integers() | st.text() | st.binary() | st.floats()


def test_values_that_are_plain_cost_nothing() -> None:
    values = (1, "a", None)
    assert arranged("SELECT ?, ?, ?", values, MYSQL) == ("SELECT ?, ?, ?", values)
    assert arranged("no statement at all '", values, MYSQL)[1] is values


@given(st.lists(PLAIN))
def test_plain_values_hold_no_container(values: list[Any]) -> None:
    assert not has_containers(values)
    for container in ([], (), set(), frozenset(), {}):
        assert has_containers([*values, container])


@pytest.mark.parametrize(
    ("sql", "binds", "text", "values"),
    [
        ("a = ?", [(1,)], "a = ?", [1]),
        ("a = ? AND b = ?", [(1, 2)], "a = ? AND b = ?", [1, 2]),
        ("a = ? AND b = ?", [[1, 2]], "a = ? AND b = ?", [1, 2]),
        ("a IN (?)", [[1, 2]], "a IN (?, ?)", [1, 2]),
        ("a IN (?)", [(1, 2)], "a IN (?, ?)", [1, 2]),
        ("a in ( /* x */ ? ) AND b = ?", [[1, 2], 3], "a IN (?, ?) AND b = ?", [1, 2, 3]),
        ("a NOT IN (?)", [[1, 2]], "a NOT IN (?, ?)", [1, 2]),
        ("a IN ?", [(1, 2)], "a IN (?, ?)", [1, 2]),
        ("a IN ?", [(1,)], "a IN (?)", [1]),
        ("(a, b) IN (?)", [[(1, 2), (3, 4)]], "(a, b) IN ((?, ?), (?, ?))", [1, 2, 3, 4]),
        ("a IN (?) OR b IN (?)", [[1], [2, 3]], "a IN (?) OR b IN (?, ?)", [1, 2, 3]),
        ("a IN (?, ?)", [1, 2], "a IN (?, ?)", [1, 2]),
    ],
)
def test_lists_are_written_out(sql: str, binds: list[Any], text: str, values: list[Any]) -> None:
    found, its_values = arranged(sql, binds, MYSQL)
    assert (found, list(its_values)) == (text, values)


@pytest.mark.parametrize("dialect", [SQLITE, MYSQL, POSTGRES, CLICKHOUSE])
def test_an_empty_list_leaves_no_placeholder(dialect: Dialect) -> None:
    for sql in ("a IN (?)", "a NOT IN (?)"):
        text, values = arranged(sql, [[]], dialect)
        assert list(values) == []
        assert not sites(text, dialect)
        assert text != sql


def test_a_list_of_rows_is_a_table_for_sqlite() -> None:
    assert expanded("(a, b) IN (?)", [[(1, 2)]], SQLITE) == ("(a, b) IN (VALUES (?, ?))", [1, 2])


def test_numbered_placeholders_are_numbered_anew() -> None:
    text, values = arranged("a IN ($2) AND b = $1", [7, [1, 2]], POSTGRES)
    assert (text, list(values)) == ("a IN ($1, $2) AND b = $3", [1, 2, 7])


def test_a_wrong_number_of_values_is_refused() -> None:
    with pytest.raises(StatementError):
        arranged("a = ? AND b = ?", [(1, 2, 3)], MYSQL)


def test_a_list_elsewhere_is_left_to_the_driver() -> None:
    sql, binds = "a = ? AND b = ?", [[1], 2]
    assert arranged(sql, binds, POSTGRES) == (sql, binds)


def test_the_only_value_may_be_the_list_of_all() -> None:
    assert spread([1], 1) == [1]
    assert spread([(1, 2)], 2) == (1, 2)
    assert spread([[1, 2]], 2) == [1, 2]
    assert spread([[1]], 1) == [[1]]
    assert spread([(1,)], 1) == (1,)
    assert spread([(1,)], 1, sites("a IN ?", MYSQL)) == [(1,)]
    assert spread([([1],)], 1, sites("a IN ?", MYSQL)) == ([1],)


def test_a_dict_alone_is_one_value_where_placeholders_have_no_names() -> None:
    assert in_order({"a": 1}) == ({"a": 1},)
    assert in_order([1, 2]) == [1, 2]


def test_rows_with_lists_are_found_where_a_placeholder_takes_them() -> None:
    assert has_lists_for("a IN (?)", [[1], [[1, 2]]], MYSQL)
    assert has_lists_for("a IN (:x)", [{"x": [1, 2]}], SQLITE)
    assert not has_lists_for("a IN (?)", [[1], [2]], MYSQL)
    assert not has_lists_for("a = ?", [[[1, 2]]], MYSQL)


@pytest.mark.parametrize(
    ("value", "word"),
    [({}, "a dict"), ([], "a list"), ((), "a tuple"), (set(), "a set"), (frozenset(), "frozenset")],
)
def test_a_container_elsewhere_is_refused_with_advice(value: Any, word: str) -> None:
    text = str(misplaced(value))
    assert word in text
    assert "stands where one value does" in text


def test_a_time_of_day_in_a_zone_with_summer_time_is_refused() -> None:
    assert of_day(time(1)) == time(1)
    assert of_day(time(1, tzinfo=UTC)) == time(1, tzinfo=UTC)
    with pytest.raises(StatementError, match="bind a datetime"):
        of_day(time(1, tzinfo=ZoneInfo("Europe/Berlin")))


def test_texts_that_are_too_long_to_keep_are_read_each_time() -> None:
    sql = f"SELECT {'x' * 20_000} WHERE a IN (?)"
    assert len(sites(sql, MYSQL)) == 1

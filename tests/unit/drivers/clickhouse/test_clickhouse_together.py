"""Inserts of several holders in one block: to each of them as if its own had run alone."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.servers.clickhouse import ClickHouse
from trunkline.actors.driver import Result
from trunkline.actors.drivers.clickhouse.driver import ClickhouseDriver
from trunkline.actors.drivers.clickhouse.together import table_of
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import StatementError


@pytest.fixture
def driver(clickhouse: ClickHouse) -> Iterator[ClickhouseDriver]:
    driver = ClickhouseDriver(
        parse_address(f"clickhouse://u:p@127.0.0.1:{clickhouse.port}/default")
    )
    with closing(driver):
        driver.open(Deadline(20))
        yield driver


@pytest.fixture
def table(driver: ClickhouseDriver) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex[:12]}"
    driver.execute(f"CREATE TABLE {name} (n Int8, s String) ENGINE = MergeTree ORDER BY n", ())
    yield name
    driver.execute(f"DROP TABLE {name}", ())


def stored(driver: ClickhouseDriver, table: str) -> list[Any]:
    found = driver.execute(f"SELECT n, s FROM {table} ORDER BY n, s", ())
    return [tuple(row) for row in found.values]


def parts(driver: ClickhouseDriver, table: str) -> int:
    """How many parts its inserts have made, those that were merged since included."""
    blocks = "max(max_block_number) - min(min_block_number) + 1"
    found = driver.execute(f"SELECT {blocks} FROM system.parts WHERE table = '{table}'", ())
    return int(found.values[0][0])


def test_what_waits_together_is_one_part(driver: ClickhouseDriver, table: str) -> None:
    insert = f"INSERT INTO {table} VALUES (?, ?)"
    several = f"INSERT INTO {table} VALUES (?, 'x'), (4, ?)"
    found = driver.execute_together(
        [
            (insert, [1, "a"]),
            (several, [3, "y"]),
            (f"INSERT INTO {table} (n) VALUES (7)", []),
            (insert, [2, "b"]),
        ]
    )
    assert [each.affected if isinstance(each, Result) else each for each in found] == [1, 2, 1, 1]
    assert stored(driver, table) == [(1, "a"), (2, "b"), (3, "x"), (4, "y"), (7, "")]
    assert parts(driver, table) == 2, "one for each list of columns"


def test_one_that_is_refused_leaves_the_others_alone(driver: ClickhouseDriver, table: str) -> None:
    insert = f"INSERT INTO {table} VALUES (?, ?)"
    given: list[tuple[str, Any]] = [
        (insert, [1, "a"]),
        (insert, [1000, "too large for its column"]),
        (insert, ["b"]),
        ("INSERT INTO nowhere_to_be_found VALUES (1)", []),
        (insert, [2, "b"]),
        (insert, {"a": 1}),
    ]
    found = driver.execute_together(given)
    refused = [type(each) is StatementError for each in found]
    assert refused == [False, True, True, True, False, True]
    assert getattr(found[3], "code", None) == 60
    assert stored(driver, table) == [(1, "a"), (2, "b")]


@pytest.fixture
def strict(driver: ClickhouseDriver, request: pytest.FixtureRequest) -> Iterator[str]:
    """A table that the server fills with an expression which fails for some values."""
    name = f"t{uuid.uuid4().hex[:12]}"
    driver.execute(
        f"CREATE TABLE {name} {request.param}".replace("COLUMNS", "n Int32, s String"), ()
    )
    yield name
    driver.execute(f"DROP TABLE {name}", ())


@pytest.mark.parametrize(
    "strict",
    [
        "(COLUMNS, d Date MATERIALIZED toDate(s)) ENGINE = MergeTree ORDER BY n",
        "(COLUMNS, d Int32 DEFAULT intDiv(10, n)) ENGINE = MergeTree ORDER BY n",
        "(COLUMNS) ENGINE = MergeTree ORDER BY intDiv(10, n)",
    ],
    indirect=True,
)
@pytest.mark.parametrize("place", ["{}", "default.{}", "`{}`"])
def test_one_for_which_an_expression_of_the_table_fails_leaves_the_others_alone(
    driver: ClickhouseDriver, strict: str, place: str
) -> None:
    insert = f"INSERT INTO {place.format(strict)} (n, s) VALUES (?, ?)"
    found = driver.execute_together(
        [(insert, [1, "2026-01-01"]), (insert, [0, "garbage"]), (insert, [2, "2026-01-02"])]
    )
    assert [type(each) is StatementError for each in found] == [False, True, False]
    assert stored(driver, strict) == [(1, "2026-01-01"), (2, "2026-01-02")]


@pytest.mark.parametrize(
    "strict", ["(COLUMNS) ENGINE = MergeTree PARTITION BY n ORDER BY intDiv(10, n)"], indirect=True
)
def test_where_a_part_of_the_block_may_be_stored_nothing_is_sent_again(
    driver: ClickhouseDriver, strict: str
) -> None:
    insert = f"INSERT INTO {strict} (n, s) VALUES (?, ?)"
    found = driver.execute_together([(insert, [1, "a"]), (insert, [0, "b"]), (insert, [2, "c"])])
    assert [type(each) for each in found] == [StatementError] * 3
    rows = stored(driver, strict)
    assert len(rows) == len(set(rows))


def test_a_view_that_fails_has_nothing_sent_again(driver: ClickhouseDriver, table: str) -> None:
    driver.execute(
        f"CREATE MATERIALIZED VIEW v{table} ENGINE = MergeTree ORDER BY x AS SELECT intDiv(10, n) AS x"
        f" FROM {table}",
        (),
    )
    try:
        insert = f"INSERT INTO {table} VALUES (?, ?)"
        found = driver.execute_together(
            [(insert, [1, "a"]), (insert, [0, "b"]), (insert, [2, "c"])]
        )
        assert [type(each) for each in found] == [StatementError] * 3
        assert stored(driver, table) == [(0, "b"), (1, "a"), (2, "c")], (
            "the table had them before the view"
        )
    finally:
        driver.execute(f"DROP TABLE v{table}", ())


@pytest.mark.parametrize(
    ("head", "table"),
    [
        ("INSERT INTO t VALUES", ("", "t")),
        ("insert into table db . t (a, b) values", ("db", "t")),
        ('INSERT INTO "d b".`t``', None),
        ('INSERT INTO "d b".`t` VALUES', ("d b", "t")),
        ("INSERT INTO FUNCTION remote('h', db.t) VALUES", None),
        ("INSERT /* into */ INTO t VALUES", None),
    ],
)
def test_the_table_of_an_insert(head: str, table: tuple[str, str] | None) -> None:
    assert table_of(head) == table


def test_a_lost_server_leaves_nobody_without_an_answer(
    driver: ClickhouseDriver, table: str
) -> None:
    insert = f"INSERT INTO {table} VALUES (?, ?)"
    kinds = []

    def insert_or_lose(what: Any, rows: Any) -> Result:
        kinds.append(what)
        if len(kinds) == 2:
            raise ConnectionError("gone")
        return ClickhouseDriver._insert(driver, what, rows)

    driver._insert = insert_or_lose  # type: ignore[method-assign]
    tables = [insert, f"INSERT INTO {table} (n) VALUES (?)", f"INSERT INTO {table} (s) VALUES (?)"]
    found = driver.execute_together([(tables[0], [1, "a"]), (tables[1], [2]), (tables[2], ["c"])])
    assert [type(each) for each in found] == [Result, ConnectionError, ConnectionError]
    assert stored(driver, table) == [(1, "a")]


@pytest.mark.parametrize(
    ("sql", "joins"),
    [
        ("INSERT INTO t VALUES (?, 1)", True),
        ("INSERT INTO t (a) VALUES (1), (?)", True),
        ("INSERT INTO t VALUES", False),
        ("INSERT INTO t VALUES (now())", False),
        ("INSERT INTO t SELECT 1", False),
        ("SELECT 1", False),
        ("SELECT 1; SELECT 2", False),
        ("", False),
    ],
)
def test_which_statements_may_share_a_block(sql: str, joins: bool) -> None:
    assert ClickhouseDriver.joins(sql) is joins

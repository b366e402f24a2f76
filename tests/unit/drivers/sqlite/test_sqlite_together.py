"""Inserts of several holders with one commit: to each of them as if its own had run alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from trunkline.actors.driver import Result
from trunkline.actors.drivers.sqlite.driver import SqliteDriver
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import StatementError

INSERT = "INSERT INTO t (a) VALUES (?)"


def _opened(address: str) -> SqliteDriver:
    driver = SqliteDriver(parse_address(address))
    driver.open(Deadline(5))
    return driver


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[SqliteDriver]:
    driver = _opened(f"sqlite3://{tmp_path}/test.db?_busy_timeout=200")
    driver.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE NOT NULL)", ())
    with closing(driver):
        yield driver


def _stored(tmp_path: Path) -> list[Any]:
    with closing(sqlite3.connect(tmp_path / "test.db")) as other:
        return [row[0] for row in other.execute("SELECT a FROM t ORDER BY id")]


def _ids(outcomes: list[Result | StatementError]) -> list[Any]:
    return [
        outcome.last_id if isinstance(outcome, Result) else outcome.code for outcome in outcomes
    ]


def test_each_gets_what_its_own_statement_gave(driver: SqliteDriver, tmp_path: Path) -> None:
    found = driver.execute_together([(INSERT, [n]) for n in "abc"])
    assert [(each.affected, each.last_id) for each in found if isinstance(each, Result)] == [
        (1, 1),
        (1, 2),
        (1, 3),
    ]
    assert _stored(tmp_path) == ["a", "b", "c"]
    assert not driver.in_transaction()


def test_one_that_is_refused_leaves_the_others_alone(driver: SqliteDriver, tmp_path: Path) -> None:
    given = [
        (INSERT, ["a"]),
        (INSERT, ["a"]),
        (INSERT, []),
        ("INSERT INTO gone VALUES (1)", []),
        (INSERT, ["b"]),
    ]
    assert _ids(driver.execute_together(given)) == [
        1,
        "SQLITE_CONSTRAINT_UNIQUE",
        None,
        "SQLITE_ERROR",
        2,
    ]
    assert _stored(tmp_path) == ["a", "b"]


def test_a_statement_of_several_rows_is_all_or_none(driver: SqliteDriver, tmp_path: Path) -> None:
    given = [
        (INSERT, ["a"]),
        ("INSERT INTO t (a) VALUES ('b'), ('c'), (NULL)", []),
        (INSERT, ["d"]),
    ]
    assert _ids(driver.execute_together(given)) == [1, "SQLITE_CONSTRAINT_NOTNULL", 2]
    assert _stored(tmp_path) == ["a", "d"]


def test_where_all_is_taken_back_none_was_run(driver: SqliteDriver, tmp_path: Path) -> None:
    driver.execute(
        "CREATE TRIGGER no BEFORE INSERT ON t WHEN new.a = 'x' BEGIN SELECT RAISE(ROLLBACK, 'no x'); END",
        (),
    )
    assert driver.execute_together([(INSERT, [n]) for n in "abxc"]) == []
    assert _stored(tmp_path) == []
    assert not driver.in_transaction()


def test_nothing_is_together_where_foreign_keys_are_checked(tmp_path: Path) -> None:
    """A deferred one is checked with the commit, and could be met there by somebody else's row."""
    driver = _opened(f"sqlite3://{tmp_path}/test.db?_fk=1")
    with closing(driver):
        driver.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)", ())
        assert driver.execute_together([(INSERT, ["a"]), (INSERT, ["b"])]) == []
    assert _stored(tmp_path) == []


def test_a_lock_ends_the_group_before_who_needs_it(driver: SqliteDriver, tmp_path: Path) -> None:
    driver.execute("CREATE TEMP TABLE mine (n)", ())
    mine = ("INSERT INTO mine VALUES (1)", [])
    with closing(sqlite3.connect(tmp_path / "test.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert _ids(driver.execute_together([mine, mine, (INSERT, ["a"]), mine])) == [1, 2]
        assert driver.execute_together([(INSERT, ["a"]), mine]) == []
        assert not driver.in_transaction()
        other.execute("ROLLBACK")
    assert _ids(driver.execute_together([(INSERT, ["a"]), (INSERT, ["b"])])) == [1, 2]
    assert driver.execute("SELECT count(*) FROM mine", ()).values == [[2]]


def test_a_reader_that_holds_up_the_commit_leaves_each_to_itself(
    driver: SqliteDriver, tmp_path: Path
) -> None:
    driver.execute_together([(INSERT, ["a"]), (INSERT, ["b"])])
    with closing(sqlite3.connect(tmp_path / "test.db", isolation_level=None)) as other:
        cursor = other.execute("SELECT a FROM t")
        cursor.fetchone()  # holds a shared lock, so a commit must wait
        assert driver.execute_together([(INSERT, ["c"]), (INSERT, ["d"])]) == []
        cursor.close()
    assert _stored(tmp_path) == ["a", "b"]


@pytest.mark.parametrize(
    ("sql", "joins"),
    [
        ("INSERT INTO t VALUES (?)", True),
        ("  /* x */ replace into t values (:a)", True),
        ("INSERT OR IGNORE INTO t VALUES (?)", True),
        ("INSERT INTO t VALUES (?) ON CONFLICT DO NOTHING", True),
        ("INSERT OR ROLLBACK INTO t VALUES (?)", False),
        ("INSERT OR FAIL INTO t VALUES (?)", False),
        ("INSERT INTO t SELECT * FROM u", False),
        ("INSERT INTO t VALUES ((SELECT 1))", False),
        ("INSERT INTO t VALUES (?) RETURNING a", False),
        ("WITH x AS (VALUES (1)) INSERT INTO t VALUES (1)", False),
        ("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)", False),
        ("UPDATE t SET a = 1", False),
        ("DELETE FROM t", False),
        ("SELECT 1", False),
        ("BEGIN", False),
        ("", False),
    ],
)
def test_only_short_writes_join(sql: str, joins: bool) -> None:
    assert SqliteDriver.joins(sql) is joins


def test_a_dict_for_one_placeholder_is_refused(driver: SqliteDriver) -> None:
    with pytest.raises(StatementError, match="a dict stands where one value does"):
        driver.execute(INSERT, [{"a": b"x"}])

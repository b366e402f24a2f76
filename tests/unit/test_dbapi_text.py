"""Which statements begin a transaction, by their text."""

from __future__ import annotations

import pytest

from trunkline.dbapi_text import commits, control, gives_rows, only_reads


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "  select 1;  ",
        "-- why\nSELECT 1",
        "# why\n/* and /* why */ SELECT 1",
        "(SELECT 1) UNION (SELECT 2)",
        "((select 1))",
        "VALUES (1)",
        "TABLE t",
        "WITH x AS (SELECT 1) SELECT replace(a, 'b', 'c') FROM x",
        "SHOW TABLES",
        "DESCRIBE t",
        "DESC t",
        "EXPLAIN SELECT 1",
        "EXPLAIN DELETE FROM t",
        "PRAGMA foreign_keys = ON",
        "SELECT updated, information FROM t",
    ],
)
def test_plain_reads(sql: str) -> None:
    assert only_reads(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "-- nothing",
        "INSERT INTO t VALUES (1)",
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM t for\n  share",
        "SELECT * FROM t FOR NO KEY UPDATE",
        "SELECT * FROM t LOCK IN SHARE MODE",
        "SELECT * INTO u FROM t",
        "SELECT 1; DELETE FROM t",
        "SELECT /*! SQL_NO_CACHE */ 1",
        "/*!40101 SET x = 1 */",
        "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "WITH x AS (SELECT 1) REPLACE INTO t SELECT * FROM x",
        "EXPLAIN ANALYZE SELECT 1",
        "EXPLAIN ANALYZE EXECUTE prepared",
        "EXPLAIN ANALYZE DELETE FROM t",
        "EXPLAIN (ANALYZE) UPDATE t SET a = 1",
        "CREATE TABLE t (a)",
        "SET search_path TO x",
        "CALL f()",
        "DO $$ BEGIN END $$",
        "SELECTED",
    ],
)
def test_what_writes_or_locks_or_might(sql: str) -> None:
    assert not only_reads(sql)


def test_doubt_counts_as_writing() -> None:
    assert not only_reads("SELECT 'for update'")


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("BEGIN", "begin"),
        ("begin transaction;", "begin"),
        ("/* now */ START TRANSACTION", "begin"),
        ("Commit Work", "commit"),
        ("END", "commit"),
        (" ROLLBACK ;\n", "rollback"),
        ("BEGIN IMMEDIATE", None),
        ("START TRANSACTION READ ONLY", None),
        ("ROLLBACK TO one", None),
        ("ROLLBACK PREPARED 'x'", None),
        ("COMMIT AND CHAIN", None),
        ("SAVEPOINT one", None),
        ("SELECT 1", None),
    ],
)
def test_control_statements_are_known_when_they_say_nothing_else(sql: str, word: str | None) -> None:
    assert control(sql) == word


@pytest.mark.parametrize(
    ("sql", "before"),
    [
        ("CREATE TABLE t (a INT)", True),
        ("drop table t", True),
        ("TRUNCATE t", True),
        ("ALTER TABLE t ADD b INT", True),
        ("CREATE TEMPORARY TABLE t (a INT)", False),
        ("CREATE OR REPLACE TEMPORARY TABLE t (a INT)", False),
        ("DROP TEMPORARY TABLE t", False),
        ("INSERT INTO t VALUES (1)", False),
        ("CREATED", False),
    ],
)
def test_statements_before_which_mysql_commits(sql: str, before: bool) -> None:
    assert commits(sql) == before


def test_statements_that_give_rows() -> None:
    assert gives_rows("SELECT 1")
    assert gives_rows("with x as (select 1) select 1")
    assert gives_rows("EXPLAIN SELECT 1")
    assert not gives_rows("INSERT INTO t VALUES (1)")

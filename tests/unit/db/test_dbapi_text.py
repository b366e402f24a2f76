"""Which statements begin a transaction, by their text."""

from __future__ import annotations

import pytest

from trunkline.db.text import commits, control, gives_rows, only_reads, sets_session


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "  select 1;  ",
        "-- why\nSELECT 1",
        "/* why /* and */ what */ SELECT 1",
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
    assert only_reads(sql, "postgres")


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
    assert not only_reads(sql, "postgres")


@pytest.mark.parametrize(
    ("scheme", "sql"),
    [
        ("postgres", "SELECT pg_advisory_xact_lock(1)"),
        ("postgresql", "SELECT pg_catalog.set_config('a.b', 'x', true)"),
        ("postgres", "SELECT a FROM t WHERE a = (SELECT max(book(1)) FROM u)"),
        ("postgres", 'SELECT "lower"(a) FROM t'),
        ("postgres", "SELECT mine.lower(a) FROM t"),
        ("postgres", "SELECT mine . /* why */ lower -- why\n (a) FROM t"),
        ("postgres", "SELECT * FROM book(1)"),
        ("postgres", "SELECT book /* /* */ */ (1)"),
        ("postgres", "SELECT book -- why\r(1)"),
        ("postgres", "VALUES (nextval('s'))"),
        ("postgres", "WITH x AS (SELECT buchung_ü(1)) SELECT * FROM x"),
        ("mysql", "SELECT GET_LOCK('a', 1)"),
        ("mysql", "SELECT `book` (1)"),
        ("mysql", "SELECT last_insert_id(7)"),
        ("sqlite3", "SELECT load_extension('x')"),
    ],
)
def test_a_function_that_is_not_known_to_be_pure_counts_as_writing(scheme: str, sql: str) -> None:
    assert not only_reads(sql, scheme)


@pytest.mark.parametrize(
    ("scheme", "sql"),
    [
        (
            "postgres",
            "SELECT count(*), max(a)::numeric(10, 2) FROM t WHERE b IN (1, 2) AND EXISTS (SELECT 1)",
        ),
        ("postgres", "select pg_catalog.version()"),
        ("postgres", "SELECT current_setting('default_transaction_isolation')"),
        ("mysql", "SELECT IF(a > 1, date_format(b, '%Y'), now()) FROM t"),
        ("sqlite3", "SELECT strftime('%s', a), sum(b) OVER (PARTITION BY c) FROM t"),
    ],
)
def test_pure_functions_are_reads(scheme: str, sql: str) -> None:
    assert only_reads(sql, scheme)


@pytest.mark.parametrize(
    ("scheme", "sql"),
    [
        ("postgres", "SELECT 'for update', 'book(1)', \"into\" FROM t -- book(1)"),
        ("postgres", "SELECT $a$ book(1); DELETE FROM t $a$ /* book(1) /* FOR UPDATE */ INTO */"),
        ("postgres", "SELECT E'a\\n; b' # 1"),
        ("postgres", "WITH RECURSIVE r(n) AS (SELECT 1) SELECT n FROM r"),
        ("postgres", "SELECT a.x FROM unnest('{1}'::int[]) WITH ORDINALITY AS a(x, n)"),
        ("postgres", "SELECT lastval()"),
        ("mysql", "# why\n/* and /* why */ SELECT 1"),
        ("mysql", 'SELECT `into`, "book(1)" FROM t # FOR UPDATE'),
        ("mysql", "SELECT LAST_INSERT_ID(), ROW_COUNT ( )"),
        ("mysql", "DESCRIBE SELECT 1"),
        ("sqlite3", "SELECT [for update], `into`, 'it''s; book(1)' FROM t"),
        ("sqlite3", "SELECT name FROM pragma_table_info('t')"),
    ],
)
def test_what_stands_in_strings_names_and_comments_is_text(scheme: str, sql: str) -> None:
    assert only_reads(sql, scheme)


@pytest.mark.parametrize(
    ("scheme", "sql"),
    [
        (
            "postgres",
            "SELECT 'a\\' || ' book(1) --'",
        ),  # without standard_conforming_strings: a call
        ("mysql", "SELECT 'a\\' , ' book(1) -- '"),
        ("mysql", "SELECT 1book(1)"),
        ("mysql", "SELECT $abs(1)"),
        ("mysql", "SELECT /*!50000 book(1) */"),
        ("mysql", "SELECT /*M! 1 */"),
        ("mysql", "DESC ANALYZE DELETE FROM t"),
        ("mysql", "SELECT 1 -- why\n; DELETE FROM t"),
        ("postgres", "SELECT x.pg_catalog.lower('a')"),
        ("postgres", 'SELECT U&"book"(1)'),
    ],
)
def test_doubt_counts_as_writing(scheme: str, sql: str) -> None:
    assert not only_reads(sql, scheme)


@pytest.mark.parametrize(
    ("scheme", "sql"),
    [
        ("postgres", "SET search_path TO x"),
        ("postgres", "/* why */ set session time zone 'UTC';"),
        ("postgres", "SET application_name = 'SET LOCAL; book(1)'"),
        ("postgresql", "RESET ALL"),
        ("postgres", "DISCARD ALL"),
        ("mysql", "SET time_zone = '+00:00', @x = CONCAT('a', 'b')"),
        ("mysql", "SET SESSION TRANSACTION READ ONLY"),
        ("mysql", "SET NAMES utf8mb4"),
        ("mysql", "USE `shop`"),
        ("sqlite3", "ATTACH 'x.db' AS x"),
        ("sqlite3", "VACUUM INTO 'x.db'"),
    ],
)
def test_settings_of_the_session_need_no_transaction(scheme: str, sql: str) -> None:
    assert sets_session(sql, scheme)


@pytest.mark.parametrize(
    ("scheme", "sql"),
    [
        ("postgres", "SET LOCAL search_path TO x"),
        ("postgres", "set transaction read only"),
        ("postgres", "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
        ("postgres", "SET CONSTRAINTS ALL DEFERRED"),
        ("postgres", "SET search_path TO x; DELETE FROM t"),
        ("mysql", "SET TRANSACTION READ ONLY"),
        ("mysql", "SET @@tx_isolation = 'SERIALIZABLE'"),
        ("mysql", "SET STATEMENT max_statement_time = 1 FOR DELETE FROM t"),
        ("mysql", "SET @x = book(1)"),
        ("mysql", "SET @x = (SELECT a FROM t FOR UPDATE)"),
        ("mysql", "SET @x = 1 /*! , @y = book(1) */"),
        ("mysql", "UPDATE t SET a = 1"),
        ("sqlite3", "ATTACH 'x.db' AS x; DELETE FROM t"),
        ("postgres", ""),
    ],
)
def test_settings_of_a_transaction_and_writes_are_no_settings_of_the_session(
    scheme: str, sql: str
) -> None:
    assert not sets_session(sql, scheme)


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("BEGIN", "begin"),
        ("begin transaction;", "begin"),
        ("/* now */ START TRANSACTION", "begin"),
        ("Commit Work", "commit"),
        ("END", "commit"),
        (" ROLLBACK ;\n", "rollback"),
        ("BEGIN NOW", None),
        ("BEGIN; SELECT 1", None),
        ("START", None),
        ("ROLLBACK TO one", None),
        ("ROLLBACK PREPARED 'x'", None),
        ("COMMIT AND CHAIN", None),
        ("SAVEPOINT one", None),
        ("SELECT 1", None),
    ],
)
def test_control_statements_are_known_when_they_say_nothing_else(
    sql: str, word: str | None
) -> None:
    assert control(sql, "postgres") == (None if word is None else (word, ""))


@pytest.mark.parametrize(
    ("sql", "how"),
    [
        ("begin immediate", "IMMEDIATE"),
        ("BEGIN EXCLUSIVE TRANSACTION;", "EXCLUSIVE"),
        ("START TRANSACTION READ ONLY", "READ ONLY"),
        (
            "start transaction with /* why */ consistent  snapshot, read only",
            "WITH CONSISTENT SNAPSHOT, READ ONLY",
        ),
        (
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            "ISOLATION LEVEL REPEATABLE READ READ ONLY",
        ),
        (
            "BEGIN WORK ISOLATION LEVEL SERIALIZABLE, NOT DEFERRABLE",
            "ISOLATION LEVEL SERIALIZABLE, NOT DEFERRABLE",
        ),
    ],
)
def test_the_modes_of_a_begin_are_taken_along(sql: str, how: str) -> None:
    assert control(sql, "mysql") == ("begin", how)


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
        ("/* why */ SET PASSWORD = 'x'", True),
        ("SET @x = 1", False),
        ("INSERT INTO t VALUES (1)", False),
        ("CREATED", False),
    ],
)
def test_statements_before_which_mysql_commits(sql: str, before: bool) -> None:
    assert commits(sql) == before


def test_statements_that_give_rows() -> None:
    assert gives_rows("SELECT 1", "postgres")
    assert gives_rows("with x as (select 1) select 1", "sqlite3")
    assert gives_rows("EXPLAIN SELECT 1", "mysql")
    assert not gives_rows("INSERT INTO t VALUES (1)", "clickhouse")

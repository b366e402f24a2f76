"""The sqlite3 driver's rows that are fetched bit by bit, and its bulk statements, on real files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.support.waiting import Background, until
from trunkline.actors.driver import FIRST_ROWS, Rows
from trunkline.actors.drivers.sqlite.driver import SqliteDriver
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import ClosedError, StatementError
from trunkline.wire.documents import Json

SERIES = (
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {}) SELECT n FROM c"
)
ENDLESS = (
    "WITH RECURSIVE c(n) AS (SELECT started() UNION ALL SELECT n + 1 FROM c) SELECT max(n) FROM c"
)
PAIR = "INSERT INTO t VALUES (?, ?)"

Open = Callable[..., SqliteDriver]


@pytest.fixture
def open_(tmp_path: Path) -> Iterator[Open]:
    opened: list[SqliteDriver] = []

    def go(address: str = "sqlite3://test.db") -> SqliteDriver:
        driver = SqliteDriver(parse_address(address).resolved(str(tmp_path)))
        opened.append(driver)
        driver.open(Deadline(10))
        return driver

    yield go
    for driver in opened:
        driver.close()


@pytest.fixture
def driver(open_: Open) -> SqliteDriver:
    driver = open_()
    driver.execute("CREATE TABLE t (a, b)", ())
    return driver


def read(driver: SqliteDriver, sql: str, *binds: Any) -> list[Any]:
    with_rest = driver.execute(sql, binds)
    rows = list(with_rest.values)
    if with_rest.rest is not None:
        rows += all_of(with_rest.rest)
    return rows


def all_of(rows: Rows, count: int = 100) -> list[Any]:
    found: list[Any] = []
    while batch := rows.fetch(count):
        found += batch
    return found


def started(driver: SqliteDriver, after: int = 1) -> threading.Event:
    """An event that the SQL function `started()` sets when it is called for the so manieth time."""
    running, calls = threading.Event(), iter(range(1, 1 << 62))

    def call() -> int:
        if next(calls) >= after:
            running.set()
        return 1

    driver.live.create_function("started", 0, call)
    return running


def interrupted(driver: SqliteDriver, work: Callable[[], object], running: threading.Event) -> None:
    """`work` runs in a thread, is interrupted, and says so."""
    thread = Background(work)
    assert running.wait(20)
    driver.interrupt()
    with pytest.raises(StatementError, match=r"^interrupted$") as caught:
        thread.result()
    assert caught.value.code == "SQLITE_INTERRUPT"


def interrupt_until_ended(driver: SqliteDriver, thread: Background[Any]) -> None:
    """As the executor does: one may come a moment before there is anything to interrupt."""

    def ended() -> bool:
        driver.interrupt()
        return not thread.running()

    until(ended, "the end of the statement")


# rows bit by bit


@pytest.mark.parametrize(
    "count", [0, 1, FIRST_ROWS - 1, FIRST_ROWS, FIRST_ROWS + 1, 10 * FIRST_ROWS]
)
def test_execute_gives_the_first_rows_and_then_the_rest(driver: SqliteDriver, count: int) -> None:
    result = driver.execute(SERIES.format(1000) + " LIMIT ?", (count,))
    assert result.values == [[n] for n in range(1, min(count, FIRST_ROWS) + 1)]
    assert (result.rest is not None) == (count >= FIRST_ROWS)
    if result.rest is not None:
        assert all_of(result.rest) == [[n] for n in range(FIRST_ROWS + 1, count + 1)]
        assert list(result.rest.fetch(5)) == []


def test_a_query_gives_every_row_in_batches_of_any_size(driver: SqliteDriver) -> None:
    rows = driver.query(SERIES.format(1000), ())
    assert rows.columns == ["n"]
    assert rows.fetch(10) == [[n] for n in range(1, 11)]
    assert rows.fetch(100) == [[n] for n in range(11, 111)]
    assert all_of(rows, 7) == [[n] for n in range(111, 1001)]


def test_only_the_last_statement_of_a_text_is_left_open(driver: SqliteDriver) -> None:
    result = driver.execute(f"{SERIES.format(200)}; DELETE FROM t", ())
    assert (len(result.values), result.rest) == (200, None)
    result = driver.execute(f"DELETE FROM t; {SERIES.format(200)}", ())
    assert result.rest is not None
    result.rest.close()


def test_a_write_with_rows_is_run_to_its_end_at_once(driver: SqliteDriver, open_: Open) -> None:
    result = driver.execute(f"INSERT INTO t (a) {SERIES.format(500)} RETURNING a", ())
    assert (len(result.values), result.affected, result.last_id, result.rest) == (
        500,
        500,
        500,
        None,
    )
    assert read(open_(), "SELECT count(*) FROM t") == [[500]]


def test_several_queries_are_open_beside_other_statements(driver: SqliteDriver) -> None:
    first, second = (driver.query(SERIES.format(500), ()) for _ in range(2))
    for n in range(1, 501):
        assert first.fetch(1) == [[n]]
        driver.execute(PAIR, (n, None))
        assert second.fetch(1) == [[n]]
    assert read(driver, "SELECT count(*) FROM t") == [[500]]


def test_a_write_beside_an_open_query_is_committed_at_once(
    driver: SqliteDriver, open_: Open
) -> None:
    rows = driver.query(SERIES.format(500), ())
    driver.execute(PAIR, (1, 2))
    assert read(open_(), "SELECT * FROM t") == [[1, 2]]
    rows.close()


def test_a_query_goes_on_over_the_end_of_transactions(driver: SqliteDriver) -> None:
    rows = driver.query(SERIES.format(500), ())
    for end in (driver.commit, driver.rollback):
        driver.begin()
        driver.execute(PAIR, (1, 2))
        end()
        assert len(rows.fetch(100)) == 100
    assert read(driver, "SELECT count(*) FROM t") == [[1]]
    assert len(all_of(rows)) == 300


def test_a_query_that_a_rollback_ends_says_so(driver: SqliteDriver) -> None:
    driver.executemany(PAIR, [[n, n] for n in range(200)])
    driver.begin()
    driver.execute("CREATE TABLE u (a)", ())
    rows = driver.query("SELECT * FROM t", ())
    rows.fetch(FIRST_ROWS)
    driver.rollback()
    with pytest.raises(StatementError, match=r"abort due to ROLLBACK: .* run it again") as caught:
        rows.fetch(10)
    assert caught.value.code == "SQLITE_ABORT_ROLLBACK"
    assert read(driver, "SELECT count(*) FROM t") == [[200]]


@pytest.mark.parametrize("sql", ["DROP TABLE t", "VACUUM", "PRAGMA journal_mode = wal"])
def test_what_an_open_query_blocks_says_so(driver: SqliteDriver, sql: str) -> None:
    driver.executemany(PAIR, [[n, n] for n in range(200)])
    rows = driver.query("SELECT * FROM t", ())
    with pytest.raises(
        StatementError, match="a query of this connection is not all read; read it to the end"
    ):
        driver.execute(sql, ())
    assert len(all_of(rows)) == 200
    driver.execute(sql, ())


def test_a_query_that_is_closed_early_blocks_nothing(driver: SqliteDriver) -> None:
    driver.executemany(PAIR, [[n, n] for n in range(200)])
    rows = driver.query("SELECT * FROM t", ())
    rows.close()
    rows.close()
    assert list(rows.fetch(10)) == []
    driver.execute("DROP TABLE t", ())


def test_closing_the_connection_closes_its_queries(driver: SqliteDriver) -> None:
    result = driver.execute(SERIES.format(500), ())
    driver.close()
    assert result.rest is not None
    with pytest.raises(ClosedError):
        result.rest.fetch(1)
    result.rest.close()


def test_an_error_amid_the_rows_ends_the_query(driver: SqliteDriver) -> None:
    driver.executemany(PAIR, [[n, "text"] for n in range(200)])
    driver.execute("UPDATE t SET b = CAST(x'ff' AS TEXT) WHERE a = 150", ())
    rows = driver.query("SELECT b FROM t", ())
    assert len(rows.fetch(100)) == 100
    with pytest.raises(StatementError, match="read such a column with CAST"):
        rows.fetch(100)
    driver.execute("DROP TABLE t", ())


def test_floats_in_columns_of_dates_keep_every_digit_over_all_batches(open_: Open) -> None:
    driver = open_()
    driver.execute("CREATE TABLE f (n INTEGER, a TIMESTAMP)", ())
    # the first come late, so that the second reading has to catch up
    given = [[n, 1700000000.123456 + n / 7 if n > 300 and n % 3 else n] for n in range(3000)]
    driver.executemany("INSERT INTO f VALUES (?, ?)", given)
    found = all_of(driver.query("SELECT n, a FROM f ORDER BY n", ()), 250)
    assert [row[1] for row in found if type(row[1]) is float] == [
        v for _, v in given if type(v) is float
    ]
    assert len(found) == 3000
    driver.execute("DROP TABLE f", ())


def test_floats_keep_every_digit_where_rows_are_written_meanwhile(open_: Open) -> None:
    driver = open_()
    driver.execute("CREATE TABLE f (n INTEGER PRIMARY KEY, a TIMESTAMP)", ())
    driver.executemany("INSERT INTO f VALUES (?, ?)", [[n, 0.1 + n / 7] for n in range(1000)])
    rows = driver.query("SELECT a FROM f", ())
    found = list(rows.fetch(100))
    driver.execute("DELETE FROM f WHERE n < 50", ())
    found += all_of(rows)
    assert [f"{row[0]:.15g}" for row in found] == [f"{0.1 + n / 7:.15g}" for n in range(1000)]


def test_loc_holds_for_every_batch(open_: Open) -> None:
    driver = open_("sqlite3://test.db?_loc=US%2FCentral")
    driver.execute("CREATE TABLE z (a DATETIME)", ())
    driver.executemany("INSERT INTO z VALUES (?)", [[datetime(2024, 1, 31, 10, tzinfo=UTC)]] * 300)
    found = all_of(driver.query("SELECT a FROM z", ()))
    assert {(row[0].isoformat(), str(row[0].tzinfo)) for row in found} == {
        ("2024-01-31T04:00:00-06:00", "US/Central")
    }


# stopping


def test_an_interrupt_stops_one_statement_and_no_open_query(driver: SqliteDriver) -> None:
    rows = driver.query(SERIES.format(500), ())
    rows.fetch(100)
    interrupted(driver, lambda: driver.execute(ENDLESS, ()), started(driver))
    assert read(driver, "SELECT 1") == [[1]]
    assert len(all_of(rows)) == 400


def test_an_interrupt_between_two_batches_hits_nothing(driver: SqliteDriver) -> None:
    rows = driver.query(SERIES.format(500), ())
    rows.fetch(100)
    driver.interrupt()
    assert len(rows.fetch(100)) == 100
    driver.interrupt()
    assert read(driver, SERIES.format(200)) == [[n] for n in range(1, 201)]
    assert len(all_of(rows)) == 300


def test_a_batch_that_takes_long_can_be_interrupted(driver: SqliteDriver) -> None:
    rows = driver.query(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c WHERE n < 200",
        (),
    )
    rows.fetch(150)
    other = driver.query(SERIES.format(500), ())
    thread = Background(lambda: all_of(rows))
    interrupt_until_ended(driver, thread)
    with pytest.raises(StatementError, match=r"^interrupted$"):
        thread.result()
    assert len(all_of(other)) == 500


# many rows at once


class Side(Enum):
    BUY = "buy"


DAY = date(2024, 1, 31)
KINDS = [
    None, 1, -(1 << 63), 1.5, float("nan"), "ü\U0001f600\x00", b"\x00\xff", True, Decimal("1.10"),
    datetime(2024, 1, 31, 10, 0, 0, 5), datetime(2024, 1, 31, 10, tzinfo=UTC), DAY, time(10, 30),
    timedelta(days=1), UUID(int=1), Json([1, {"a": Decimal("1.0"), "d": DAY}]), Json({"a": 0}),
    ip_address("::1"), ip_address("10.0.0.1"), bytearray(b"a"), memoryview(b"abcd")[::2], Side.BUY,
]  # fmt: skip


def test_a_row_of_any_types_is_stored_as_execute_stores_it(driver: SqliteDriver) -> None:
    for number, value in enumerate(KINDS):
        driver.execute(PAIR, (number, value))
    alone = read(driver, "SELECT a, b, typeof(b) FROM t ORDER BY a")
    driver.execute("DELETE FROM t", ())
    assert driver.executemany(PAIR, [[n, value] for n, value in enumerate(KINDS)]).affected == len(
        KINDS
    )
    assert read(driver, "SELECT a, b, typeof(b) FROM t ORDER BY a") == alone
    driver.execute("DELETE FROM t", ())
    for number, value in enumerate(KINDS):
        driver.executemany(PAIR, [[number, value]])
    assert read(driver, "SELECT a, b, typeof(b) FROM t ORDER BY a") == alone


@pytest.mark.parametrize(
    ("sql", "rows", "stored"),
    [
        (PAIR, [[1, 2], (3, 4)], [[1, 2], [3, 4]]),
        ("INSERT INTO t VALUES (?2, ?1)", [[1, 2], (3, 4)], [[2, 1], [4, 3]]),
        ("INSERT INTO t VALUES (?1, ?1)", [[1], [3]], [[1, 1], [3, 3]]),
        ("INSERT INTO t VALUES (:a, :b)", [{"a": 1, "b": 2}, {"b": 4, "a": 3}], [[1, 2], [3, 4]]),
        ("INSERT INTO t VALUES (@a, $a)", [{"a": 1}, {"a": 2, "more": 3}], [[1, 1], [2, 2]]),
        ("INSERT INTO t VALUES (:a, :a)", [[1], [2]], [[1, 1], [2, 2]]),
        ("INSERT INTO t VALUES (:a, :b)", [{"a": 1, "b": 2}, [3, 4]], [[1, 2], [3, 4]]),
        ("INSERT INTO t VALUES (:a, 5) -- :b", [{"a": Side.BUY}], [["buy", 5]]),
        (
            "WITH x AS (SELECT ? AS v) INSERT INTO t SELECT v, v FROM x",
            [[1], [2]],
            [[1, 1], [2, 2]],
        ),
        (f"{PAIR}, (7, 8) RETURNING a", [[1, 2]], [[1, 2], [7, 8]]),
        (f"REPLACE {PAIR[7:]}", [[1, 2]], [[1, 2]]),
        ("INSERT INTO t VALUES (1, 2)", [[], []], [[1, 2], [1, 2]]),
        (PAIR, [], []),
    ],
    ids=str,
)
def test_executemany_runs_the_statement_for_each_row(
    driver: SqliteDriver, open_: Open, sql: str, rows: list[Any], stored: list[Any]
) -> None:
    result = driver.executemany(sql, rows)
    assert (result.affected, result.columns, result.values) == (len(stored), [], [])
    assert not driver.in_transaction()
    assert read(open_(), "SELECT a, b FROM t") == stored


def test_affected_is_the_sum(driver: SqliteDriver) -> None:
    driver.executemany(PAIR, [[n % 3, n] for n in range(9)])
    assert driver.executemany("UPDATE t SET b = 0 WHERE a = ?", [[0], [1], [7]]).affected == 6
    assert driver.executemany("DELETE FROM t WHERE a = ?", [[0], [2]]).affected == 6


WRONG = [
    (PAIR, [[1, 2], [3]], "^row 2: the statement has 2 placeholders and 1 value was given$", None),
    (
        PAIR,
        [[1, 2], [3, 4], (5, 6, 7)],
        "^row 3: the statement has 2 placeholders and 3 values were",
        None,
    ),
    (
        PAIR,
        [[1, 2], {"a": 1}],
        "^row 2: the placeholder [?] takes values in order; write :name",
        None,
    ),
    (PAIR, [{"a": 1}], "^row 1: the placeholder [?] takes values in order; write :name", None),
    (
        PAIR,
        [[1, 2], 5],
        "^row 2: a row is a list, tuple or dict of values, and this is of type int",
        None,
    ),
    (
        "INSERT INTO t VALUES (:a, :b)",
        [{"a": 1, "b": 2}, {"a": 1}],
        "^row 2: the statement has .* :b",
        None,
    ),
    (
        "INSERT INTO t VALUES (?2, ?1)",
        [[1, 2], [1, 2, 3]],
        "^row 2: the statement has 2 placeholders",
        None,
    ),
    (
        PAIR,
        [[1, 2], [3, 1 << 63]],
        "^row 2: an integer of more than 64 bits .*; bind it as str$",
        None,
    ),
    (PAIR, [[1, 2], [3, {1}]], "^row 2: a set stands where one value does", None),
    (PAIR, [[1, 2], [3, [1j]]], "^row 2: a list stands where one value does", None),
    (PAIR, [[1, 2], [3, "\ud800"]], "^row 2: SQLite stores UTF-8 only", None),
    (PAIR, [[1, 2], [Side.BUY, "\ud800"]], "^row 2: SQLite stores UTF-8 only", None),
    (
        "INSERT INTO u VALUES (?)",
        [[1], [2], [1]],
        "^row 3: UNIQUE constraint",
        "SQLITE_CONSTRAINT_PRIMARYKEY",
    ),
    ("INSERT INTO u VALUES (?)", [[1], ["x"]], "^row 2: datatype mismatch", "SQLITE_MISMATCH"),
    (
        "INSERT INTO u VALUES (?) RETURNING a",
        [[1], [1]],
        "^row 2: UNIQUE",
        "SQLITE_CONSTRAINT_PRIMARYKEY",
    ),
    (
        "INSERT OR ROLLBACK INTO u VALUES (?)",
        [[1], [1]],
        "^row 2: UNIQUE",
        "SQLITE_CONSTRAINT_PRIMARYKEY",
    ),
    (
        "INSERT OR FAIL INTO u VALUES (?)",
        [[1], [1]],
        "^row 2: UNIQUE",
        "SQLITE_CONSTRAINT_PRIMARYKEY",
    ),
    ("INSERT INTO missing VALUES (?)", [[1]], "^no such table: missing$", "SQLITE_ERROR"),
    ("INSERT INTO t VALUES (?", [[1]], "^incomplete input$", "SQLITE_ERROR"),
    ("SELECT ?", [[1]], "^executemany takes INSERT, UPDATE, DELETE or REPLACE; use exec", None),
    ("CREATE TABLE v (a)", [[]], "^executemany takes INSERT", None),
    (f"{PAIR}; {PAIR}", [[1, 2]], "^executemany takes one statement, and this text has 2$", None),
    (" -- nothing", [[1, 2]], "^executemany takes one statement, and this text has none$", None),
]


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize(
    ("sql", "rows", "says", "code"), WRONG, ids=lambda value: ascii(value)[:60]
)
def test_a_wrong_row_is_named_and_nothing_is_written(
    driver: SqliteDriver, sql: str, rows: list[Any], says: str, code: str | None, inside: bool
) -> None:
    driver.execute("CREATE TABLE u (a INTEGER PRIMARY KEY)", ())
    if inside:
        driver.begin()
        driver.execute(PAIR, ("before", 0))
    with pytest.raises(StatementError, match=says) as caught:
        driver.executemany(sql, rows)
    assert caught.value.code == code
    ended = "OR ROLLBACK" in sql
    assert driver.in_transaction() == (inside and not ended)
    if driver.in_transaction():
        driver.commit()
    assert read(driver, "SELECT a FROM t") == ([["before"]] if inside and not ended else [])
    assert read(driver, "SELECT * FROM u") == []


def test_what_the_commit_refuses_is_written_by_no_row(open_: Open) -> None:
    driver = open_("sqlite3://test.db?_fk=1")
    driver.execute("CREATE TABLE p (a INTEGER PRIMARY KEY)", ())
    driver.execute("CREATE TABLE c (a REFERENCES p DEFERRABLE INITIALLY DEFERRED)", ())
    with pytest.raises(StatementError, match=r"^FOREIGN KEY constraint failed$"):
        driver.executemany("INSERT INTO c VALUES (?)", [[1], [2]])
    assert (driver.in_transaction(), read(driver, "SELECT * FROM c")) == (False, [])


def test_bulk_writes_into_a_locked_file_wait_and_then_give_up(
    driver: SqliteDriver, open_: Open
) -> None:
    holder = open_("sqlite3://test.db?_txlock=immediate")
    holder.begin()
    with pytest.raises(
        StatementError, match=r"^database is locked: another program holds it"
    ) as caught:
        open_("sqlite3://test.db?_timeout=120").executemany(PAIR, [[1, 2]])
    assert caught.value.code == "SQLITE_BUSY"
    waiting = open_("sqlite3://test.db?_timeout=30000")
    thread = Background(lambda: waiting.executemany(PAIR, [[1, 2], [3, 4]]))
    with pytest.raises(StatementError, match="locked"):
        open_("sqlite3://test.db?_timeout=120").executemany(PAIR, [[1, 2]])
    assert thread.running()
    holder.commit()
    assert thread.result().affected == 2
    assert read(driver, "SELECT a FROM t") == [[1], [3]]


def test_a_bulk_write_that_waits_for_a_lock_can_be_interrupted(
    driver: SqliteDriver, open_: Open
) -> None:
    open_("sqlite3://test.db?_txlock=immediate").begin()
    waiting = open_("sqlite3://test.db?_timeout=600000")
    thread = Background(lambda: waiting.executemany(PAIR, [[1, 2]]))
    interrupt_until_ended(waiting, thread)
    with pytest.raises(StatementError, match=r"^interrupted$"):
        thread.result()
    assert not waiting.in_transaction()


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize("beside_a_query", [False, True], ids=["", "beside a query"])
def test_an_interrupted_bulk_write_is_taken_back(
    driver: SqliteDriver, inside: bool, beside_a_query: bool
) -> None:
    if inside:
        driver.begin()
        driver.execute(PAIR, ("before", 0))
    rows = driver.query(SERIES.format(500), ()) if beside_a_query else None
    running = started(driver, after=1000)
    given = [[n, n] for n in range(300_000)]
    thread = Background(
        lambda: driver.executemany("INSERT INTO t VALUES (?, ? + started())", given)
    )
    assert running.wait(20)
    interrupt_until_ended(driver, thread)
    with pytest.raises(StatementError, match=r"^interrupted$"):
        thread.result()
    if rows is not None:
        assert len(all_of(rows)) == 500
    assert inside or not driver.in_transaction()
    # SQLite may end the transaction with a write that is interrupted; then all of it is taken back
    kept = [["before"]] if driver.in_transaction() else []
    if driver.in_transaction():
        driver.commit()
    assert read(driver, "SELECT a FROM t") == kept


def test_a_full_database_takes_no_row_of_a_bulk_write(driver: SqliteDriver) -> None:
    driver.execute("PRAGMA max_page_count = 20", ())
    with pytest.raises(StatementError, match="no space left") as caught:
        driver.executemany(PAIR, [[n, "x" * 1000] for n in range(1000)])
    assert caught.value.code == "SQLITE_FULL"
    assert not driver.in_transaction()
    assert read(driver, "SELECT count(*) FROM t") == [[0]]
    assert driver.executemany(PAIR, [[1, 2]]).affected == 1

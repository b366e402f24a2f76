"""The sqlite3 driver on real files: what opens, what is stored, what comes back, what is refused and how."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.sqlite.driver import SqliteDriver
from trunkline.address import parse_address
from trunkline.address.sqlite import _SHORT
from trunkline.deadline import Deadline
from trunkline.errors import AddressError, ClosedError, DialError, StatementError
from trunkline.wire.documents import Json

CASES = [
    case
    for case in json.loads((Path(__file__).parents[3] / "data" / "dsn_cases.json").read_text())
    if case["scheme"] == "sqlite3" and case["dial"] and "/tmp/" not in case["dsn"]
]
PRAGMAS = {
    "auto_vacuum": 0,
    "busy_timeout": 5000,
    "cache_size": -2000,
    "defer_foreign_keys": 0,
    "foreign_keys": 0,
    "ignore_check_constraints": 0,
    "journal_mode": "delete",
    "locking_mode": "normal",
    "query_only": 0,
    "secure_delete": None,  # the library's own default
    "synchronous": 1,
    "writable_schema": 0,
}

Open = Callable[..., SqliteDriver]


@pytest.fixture
def open_(tmp_path: Path) -> Iterator[Open]:
    opened: list[SqliteDriver] = []

    def go(address: str = "sqlite3://test.db", deadline: Deadline | None = None) -> SqliteDriver:
        driver = SqliteDriver(parse_address(address).resolved(str(tmp_path)))
        opened.append(driver)
        driver.open(deadline or Deadline(10))
        return driver

    yield go
    for driver in opened:
        driver.close()


def value(driver: SqliteDriver, sql: str, *binds: Any) -> Any:
    return driver.execute(sql, binds).values[0][0]


def run_marker(driver: SqliteDriver) -> threading.Event:
    """An event that the SQL function `started()` sets."""
    running = threading.Event()

    def started() -> int:
        running.set()
        return 1

    assert driver._connection is not None
    driver._connection.create_function("started", 0, started)
    return running


# what the DSN means


@pytest.mark.parametrize("case", [c for c in CASES if c["valid"]], ids=lambda case: case["dsn"])
def test_the_connection_is_the_one_that_go_sqlite3_makes(
    case: Any, open_: Open, tmp_path: Path
) -> None:
    (tmp_path / "existing.db").touch()
    driver = open_(case["dial"])
    effective = dict(case["expect"].get("effective", {}))
    for name, plain in PRAGMAS.items():
        if name in effective or plain is not None:
            assert value(driver, f"PRAGMA {name}") == effective.get(name, plain), name
    if "write_error" in effective:
        with pytest.raises(StatementError, match=effective["write_error"]):
            driver.execute("CREATE TABLE t (a)", ())
    else:
        driver.execute("CREATE TABLE t (a)", ())
    assert value(driver, "SELECT 'A' LIKE 'a'") == (
        0 if effective.get("case_sensitive_like") else 1
    )
    assert value(driver, "SELECT file FROM pragma_database_list") == where(
        tmp_path, case["expect"]["file"]
    )


def test_the_page_names_every_parameter_of_the_cases_and_of_the_grammar() -> None:
    page = (Path(__file__).parents[4] / "docs" / "sqlite.md").read_text(encoding="utf-8")
    names = {name for case in CASES if case["valid"] for name in case["expect"]["params"]}
    known = {name for name in names if name.startswith("_")} | {*_SHORT, *_SHORT.values()}
    assert [name for name in sorted(known) if f"`{name}`" not in page] == []


def where(folder: Path, file: str) -> str:
    return str(folder / file) if file else ""


@pytest.mark.parametrize("case", [c for c in CASES if not c["valid"]], ids=lambda case: case["dsn"])
def test_what_go_sqlite3_refuses_is_refused(case: Any, open_: Open) -> None:
    with pytest.raises((AddressError, DialError)):
        open_(case["dial"])


@pytest.mark.parametrize(
    ("lock", "others_may_write"), [("deferred", True), ("immediate", False), ("exclusive", False)]
)
def test_begin_locks_as_txlock_says(open_: Open, lock: str, others_may_write: bool) -> None:
    first, second = (
        open_(f"sqlite3://test.db?_txlock={lock}"),
        open_("sqlite3://test.db?_timeout=0"),
    )
    second.execute("CREATE TABLE t (a)", ())
    assert not first.in_transaction()
    first.begin()
    assert first.in_transaction()
    if others_may_write:
        second.execute("INSERT INTO t VALUES (1)", ())
    else:
        with pytest.raises(
            StatementError, match="database is locked: another program holds it"
        ) as caught:
            second.execute("INSERT INTO t VALUES (1)", ())
        assert caught.value.code == "SQLITE_BUSY"
    first.rollback()
    assert not first.in_transaction()


def test_commit_keeps_and_rollback_drops(open_: Open) -> None:
    driver, other = open_(), open_()
    driver.execute("CREATE TABLE t (a)", ())
    driver.begin()
    driver.execute("INSERT INTO t VALUES (1)", ())
    driver.commit()
    driver.begin()
    driver.execute("INSERT INTO t VALUES (2)", ())
    driver.rollback()
    driver.rollback()
    assert other.execute("SELECT a FROM t", ()).values == [[1]]


def test_every_statement_is_committed_at_once(open_: Open) -> None:
    driver, other = open_(), open_()
    driver.execute("CREATE TABLE t (a); INSERT INTO t VALUES (1)", ())
    assert not driver.in_transaction()
    assert value(other, "SELECT a FROM t") == 1


# results


def test_a_select_gives_columns_and_rows(open_: Open) -> None:
    result = open_().execute(
        "SELECT 1 AS a, 'x' AS a, NULL, 2.5 UNION ALL SELECT 2, 'y', x'00', 3", ()
    )
    assert result.columns == ["a", "a", "NULL", "2.5"]
    assert result.values == [[1, "x", None, 2.5], [2, "y", b"\x00", 3]]
    assert (result.affected, result.last_id) == (None, None)


def test_what_has_no_rows_says_what_it_changed(open_: Open) -> None:
    driver = open_()
    assert driver.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)", ()).affected is None
    found = []
    for sql in (
        "INSERT INTO t (a) VALUES (1), (2), (3)",
        "UPDATE t SET a = 0 WHERE a > 1",
        "INSERT OR IGNORE INTO t VALUES (1, 1)",
        "REPLACE INTO t VALUES (9, 9)",
        "WITH x AS (SELECT 5) INSERT INTO t (a) SELECT * FROM x",
        "DELETE FROM t",
        "EXPLAIN DELETE FROM t",
    ):
        result = driver.execute(sql, ())
        found.append((result.affected, result.last_id))
    assert found == [(3, 3), (2, None), (0, None), (1, 9), (1, 10), (5, None), (None, None)]


def test_returning_gives_rows_and_counts(open_: Open) -> None:
    driver = open_()
    result = driver.execute("CREATE TABLE t (a); INSERT INTO t VALUES (?), (?) RETURNING a", (7, 8))
    assert (result.columns, result.values, result.affected, result.last_id) == (
        ["a"],
        [[7], [8]],
        2,
        2,
    )


def test_statements_of_one_text_share_the_values_in_order(open_: Open) -> None:
    driver = open_()
    result = driver.execute(
        "CREATE TABLE t (a, b); -- ; ?\n INSERT INTO t VALUES (?, ?); INSERT INTO t VALUES (?2, ?1);"
        "SELECT a, b FROM t WHERE a <> ?; DELETE FROM t;",
        (1, 2, 3, 4, "none"),
    )
    assert result.values == [[1, 2], [4, 3]]
    assert result.affected == 2


def test_a_trigger_is_one_statement(open_: Open) -> None:
    driver = open_()
    driver.execute(
        "CREATE TABLE t (a); CREATE TABLE log (a);"
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.a); SELECT 1; END;"
        "INSERT INTO t VALUES (1);",
        (),
    )
    assert value(driver, "SELECT count(*) FROM log") == 1


@pytest.mark.parametrize("sql", ["", "  ", "-- nothing", "/* ; */ ;"])
def test_no_statement_gives_an_empty_result(open_: Open, sql: str) -> None:
    result = open_().execute(sql, ())
    assert (result.columns, result.values, result.affected) == ([], [], None)


def test_names_take_a_mapping_or_values_in_order(open_: Open) -> None:
    driver = open_()
    sql = "SELECT :a, @b, $c, :a"
    assert driver.execute(sql, {"a": 1, "b": 2, "c": 3}).values == [[1, 2, 3, 1]]
    assert driver.execute(sql, (1, 2, 3)).values == [[1, 2, 3, 1]]


def test_a_very_long_text_runs(open_: Open) -> None:
    values = list(range(3000))
    sql = f"SELECT {', '.join('?' * 1000)}; " * 3
    result = open_().execute(sql, values)
    assert result.values == [values[:1000]]
    assert [each.values for each in result.more] == [[values[1000:2000]], [values[2000:]]]


# values


class Side(Enum):
    BUY = "buy"


DAY = date(2024, 1, 31)
ZONE = timezone(timedelta(hours=-5))


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ((1 << 63) - 1, (1 << 63) - 1),
        (-(1 << 63), -(1 << 63)),
        (1.5, 1.5),
        (float("nan"), None),
        (True, 1),
        (None, None),
        ("ü \U0001f600\x00'", "ü \U0001f600\x00'"),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"a"), b"a"),
        (memoryview(b"a"), b"a"),
        (Decimal("1.10"), "1.10"),
        (datetime(2024, 1, 31, 10, 0, 0, 5), "2024-01-31 10:00:00.000005"),
        (datetime(2024, 1, 31, 10, tzinfo=ZONE), "2024-01-31 10:00:00-05:00"),
        (DAY, "2024-01-31"),
        (time(10, 30), "10:30:00"),
        (timedelta(days=1, hours=2), "1 day, 2:00:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (
            Json([1, "ü", {"a": Decimal("1.0"), "d": DAY}]),
            '[1, "ü", {"a": "1.0", "d": "2024-01-31"}]',
        ),
        (Json({"a": None}), '{"a": null}'),
        (Json((1, 2)), "[1, 2]"),
        (Side.BUY, "buy"),
    ],
    ids=lambda given: re.sub(r" at 0x\w+", "", ascii(given))[:40],
)
def test_a_value_is_stored_as_documented(open_: Open, given: Any, stored: Any) -> None:
    driver = open_()
    driver.execute("CREATE TABLE t (a)", ())
    driver.execute("INSERT INTO t VALUES (?)", (given,))
    found = value(driver, "SELECT a FROM t")
    assert (type(found), found) == (type(stored), stored)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (1 << 63, "an integer of more than 64 bits does not fit SQLite; bind it as str"),
        ({1, 2}, "a set stands where one value does"),
        (1j, "SQLite cannot store a value of type complex"),
        ([1j], "a list stands where one value does"),
        ({(1,): 1}, "a dict stands where one value does"),
        ("\ud800", "half a surrogate pair"),
    ],
    ids=ascii,
)
def test_a_value_that_sqlite_cannot_store_is_refused(open_: Open, given: Any, says: str) -> None:
    with pytest.raises(StatementError, match=says):
        open_().execute("SELECT ?", (given,))


READ = [
    ("DATE", "2024-01-31", DAY),
    ("date", "2024-01-31 10:00", datetime(2024, 1, 31, 10, tzinfo=UTC)),
    ("DATETIME", "2024-01-31", datetime(2024, 1, 31, tzinfo=UTC)),
    ("datetime", "2024-01-31 10:00:01.123456789", datetime(2024, 1, 31, 10, 0, 1, 123456, UTC)),
    ("datetime", "2024-01-31T10:00:01.5Z", datetime(2024, 1, 31, 10, 0, 1, 500000, UTC)),
    ("datetime", "2024-01-31 10:00:01-05:00", datetime(2024, 1, 31, 10, 0, 1, tzinfo=ZONE)),
    ("timestamp", 1700000000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
    ("timestamp", 1700000000123, datetime(2023, 11, 14, 22, 13, 20, 123000, UTC)),
    ("timestamp", -1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ("timestamp", 1 << 62, 1 << 62),
    ("timestamp", 1.5, 1.5),
    ("timestamp", "tomorrow", "tomorrow"),
    ("timestamp", "2024-02-31", "2024-02-31"),
    ("timestamp", None, None),
    ("timestamp", b"\xff", b"\xff"),
    ("BOOLEAN", 1, True),
    ("boolean", 0, False),
    ("boolean", "maybe", "maybe"),
    ("boolean", 0.5, 0.5),
    ("text", "2024-01-31", "2024-01-31"),
]


@pytest.mark.parametrize(("declared", "stored", "read"), READ, ids=str)
def test_a_column_reads_as_it_was_declared(
    open_: Open, declared: str, stored: Any, read: Any
) -> None:
    driver = open_()
    driver.execute(f"CREATE TABLE t (a {declared})", ())
    driver.execute("INSERT INTO t VALUES (?)", (stored,))
    found = value(driver, "SELECT a FROM t")
    assert (type(found), found, getattr(found, "tzinfo", None)) == (
        type(read),
        read,
        getattr(read, "tzinfo", None),
    )


def test_a_float_in_a_column_of_dates_keeps_every_digit(open_: Open) -> None:
    driver = open_()
    driver.execute("CREATE TABLE t (a timestamp, b boolean, c text)", ())
    rows = [[1700000000.123456, 0.1 + 0.2, "x"], [datetime(2024, 1, 31, tzinfo=UTC), True, "1.5"]]
    driver.execute("INSERT INTO t VALUES (?, ?, ?), (?, ?, ?)", [*rows[0], *rows[1]])
    assert driver.execute("SELECT a, b, c, a FROM t ORDER BY c DESC -- all", ()).values == [
        [*row, row[0]] for row in rows
    ]
    assert driver.execute("WITH x AS (SELECT a FROM t) SELECT a FROM x LIMIT ?", (1,)).values == [
        rows[0][:1]
    ]


def test_loc_moves_datetimes_into_its_zone(open_: Open) -> None:
    driver = open_("sqlite3://test.db?_loc=US%2FCentral")
    driver.execute("CREATE TABLE t (a datetime, b date, c text)", ())
    driver.execute("INSERT INTO t VALUES (?, ?, ?)", ("2024-01-31 10:00", DAY, "x"))
    ((moment, day, text),) = driver.execute("SELECT * FROM t", ()).values
    assert moment == datetime(2024, 1, 31, 10, tzinfo=UTC)
    assert (moment.tzinfo, day, text) == (ZoneInfo("US/Central"), DAY, "x")


def test_loc_leaves_alone_what_would_leave_the_calendar(open_: Open) -> None:
    driver = open_("sqlite3://test.db?_loc=US%2FCentral")
    driver.execute("CREATE TABLE t (a datetime)", ())
    first = datetime(1, 1, 1, tzinfo=UTC)
    driver.execute("INSERT INTO t VALUES (?)", (first,))
    assert value(driver, "SELECT a FROM t") == first


def test_loc_local_is_the_zone_of_this_machine(open_: Open) -> None:
    driver = open_("sqlite3://test.db?_loc=Local")
    driver.execute("CREATE TABLE t (a datetime); INSERT INTO t VALUES (0)", ())
    found = value(driver, "SELECT a FROM t")
    assert found.utcoffset() == datetime.fromtimestamp(0).astimezone().utcoffset()


# refusals


@pytest.mark.parametrize(
    ("sql", "binds", "says"),
    [
        ("SELECT ?, ?", (1, 2, 3), "the statement has 2 placeholders and 3 values were given"),
        ("SELECT ?", (), "the statement has 1 placeholder and no values were given"),
        ("-- ?", (1,), "the statement has no placeholders and 1 value was given"),
        (
            "SELECT :a, :b",
            {"a": 1},
            "the statement has the placeholder :b and no value of that name",
        ),
        ("SELECT ?", {"a": 1}, "a dict stands where one value does"),
        ("SELECT * FROM missing", (), "^no such table: missing$"),
        ("SELEC 1", (), 'near "SELEC": syntax error'),
        ("SELECT '\x00'", (), "null character"),
        ("SELECT CAST(x'ff' AS TEXT)", (), "read such a column with CAST"),
    ],
)
def test_a_wrong_statement_says_what_is_wrong(open_: Open, sql: str, binds: Any, says: str) -> None:
    with pytest.raises(StatementError, match=says):
        open_().execute(sql, binds)


def test_a_wrong_count_of_values_runs_nothing(open_: Open) -> None:
    driver = open_()
    with pytest.raises(StatementError, match="2 placeholders"):
        driver.execute("CREATE TABLE t (a); INSERT INTO t VALUES (?); SELECT ?", (1,))
    assert value(driver, "SELECT count(*) FROM sqlite_schema") == 0


def test_the_code_is_the_name_that_sqlite_gives(open_: Open) -> None:
    driver = open_()
    driver.execute("CREATE TABLE t (a UNIQUE); INSERT INTO t VALUES (1)", ())
    with pytest.raises(StatementError, match=r"UNIQUE constraint failed: t\.a") as caught:
        driver.execute("INSERT INTO t VALUES (1)", ())
    assert caught.value.code == "SQLITE_CONSTRAINT_UNIQUE"


def test_a_full_database_says_so_and_lets_go_of_the_transaction(open_: Open) -> None:
    driver = open_()
    driver.execute("CREATE TABLE t (a); PRAGMA max_page_count = 10", ())
    driver.begin()
    with pytest.raises(StatementError, match=r"full: there is no space left for .*test\.db"):
        driver.execute("INSERT INTO t VALUES (zeroblob(1000000))", ())
    driver.rollback()
    assert not driver.in_transaction()


def test_writing_where_only_reading_is_allowed_says_where_to_look(open_: Open) -> None:
    with pytest.raises(
        StatementError, match="cannot be written; check its permissions, mode=ro and _query_only"
    ):
        open_("sqlite3://test.db?_query_only=1").execute("CREATE TABLE t (a)", ())


def test_a_running_statement_can_be_interrupted(open_: Open) -> None:
    driver = open_("sqlite3://:memory:")
    running = run_marker(driver)
    failures: list[StatementError] = []

    def endless() -> None:
        try:
            driver.execute(
                "WITH n(x) AS (SELECT started() UNION ALL SELECT x + 1 FROM n) SELECT sum(x) FROM n",
                (),
            )
        except StatementError as error:
            failures.append(error)

    thread = threading.Thread(target=endless)
    thread.start()
    assert running.wait(30)
    driver.interrupt()
    thread.join(30)
    assert not thread.is_alive()
    assert [(str(error), error.code) for error in failures] == [("interrupted", "SQLITE_INTERRUPT")]
    assert value(driver, "SELECT 1") == 1


def test_waiting_for_a_lock_can_be_interrupted(open_: Open) -> None:
    holder, waiting = (
        open_("sqlite3://test.db?_txlock=immediate"),
        open_("sqlite3://test.db?_timeout=600000"),
    )
    holder.begin()
    failures: list[StatementError] = []

    def wait() -> None:
        try:
            waiting.execute("SELECT started(); CREATE TABLE t (a)", ())
        except StatementError as error:
            failures.append(error)

    running = run_marker(waiting)
    thread = threading.Thread(target=wait)
    thread.start()
    assert running.wait(30)
    waiting.interrupt()
    thread.join(30)
    assert not thread.is_alive()
    assert [str(error) for error in failures] == ["interrupted"]


def test_a_lock_that_is_let_go_in_time_is_waited_for(open_: Open) -> None:
    holder, waiting = (
        open_("sqlite3://test.db?_txlock=immediate"),
        open_("sqlite3://test.db?_timeout=30000"),
    )
    holder.begin()
    running = run_marker(waiting)
    thread = threading.Thread(
        target=waiting.execute, args=("SELECT started(); CREATE TABLE t (a)", ())
    )
    thread.start()
    assert running.wait(30)
    # longer than one slice of the wait
    with pytest.raises(StatementError, match="database is locked"):
        open_("sqlite3://test.db?_timeout=120").execute("CREATE TABLE u (a)", ())
    holder.commit()
    thread.join(30)
    assert not thread.is_alive()
    assert value(holder, "SELECT name FROM sqlite_schema") == "t"


def test_a_deadlock_is_told_without_waiting(open_: Open) -> None:
    first, second = (open_("sqlite3://test.db?_timeout=600000") for _ in range(2))
    first.execute("CREATE TABLE t (a); PRAGMA journal_mode = wal", ())
    first.begin()
    first.execute("SELECT * FROM t", ())
    second.execute("INSERT INTO t VALUES (1)", ())
    with pytest.raises(StatementError, match="database is locked"):
        first.execute("INSERT INTO t VALUES (2)", ())


def test_the_busy_timeout_can_be_read_and_set(open_: Open) -> None:
    driver = open_("sqlite3://test.db?_timeout=7000")
    assert driver.execute("PRAGMA busy_timeout", ()).values == [[7000]]
    assert driver.execute("pragma main.busy_timeout(20)", ()).values == [[20]]
    result = driver.execute("PRAGMA busy_timeout = -1; -- x\nPRAGMA busy_timeout", ())
    assert (result.columns, result.values) == (["timeout"], [[0]])


def test_close_ends_it_and_may_be_repeated(open_: Open) -> None:
    driver = open_()
    driver.close()
    driver.close()
    driver.interrupt()
    assert not driver.in_transaction()
    with pytest.raises(ClosedError, match=r"the connection to .*test\.db is closed"):
        driver.execute("SELECT 1", ())


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("sqlite3://folder", "cannot open .*folder: it is a folder; name a file in it"),
        (
            "sqlite3://none/test.db",
            "cannot open .*test.db: there is no folder .*none; make it first",
        ),
        (
            "sqlite3://file:none.db?mode=ro",
            "none.db: there is no such file, and mode=ro makes none; mode=rwc does",
        ),
        (
            "sqlite3://file:none.db?mode=rw",
            "none.db: there is no such file, and mode=rw makes none",
        ),
        (
            "sqlite3:///proc/self/test.db",
            "no file can be made in /proc/self; check its permissions",
        ),
        ("sqlite3://text.txt", "cannot open .*text.txt: .*is not an SQLite database"),
        (
            "sqlite3://file:existing.db?mode=ro&_journal=wal",
            "cannot be written; check its permissions",
        ),
    ],
)
def test_what_cannot_be_opened_says_why(
    open_: Open, tmp_path: Path, address: str, says: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.txt").write_text("this is a text and no database\n" * 100)
    (tmp_path / "existing.db").touch()
    with pytest.raises(FatalError, match=says):
        open_(address)


def test_a_locked_file_may_be_dialled_again(open_: Open) -> None:
    holder = open_("sqlite3://test.db?_txlock=exclusive")
    holder.execute("CREATE TABLE t (a)", ())
    holder.begin()
    with pytest.raises(DialError, match="is locked by another program; try again") as caught:
        open_("sqlite3://test.db", Deadline(0))
    assert not isinstance(caught.value, FatalError)
    deadline = Deadline(0.4)
    with pytest.raises(DialError, match="is locked by another program"):
        open_("sqlite3://test.db", deadline)
    assert not deadline.expired(), "it is said in time"
    holder.rollback()
    assert open_().execute("SELECT * FROM t", ()).values == []


def test_the_peer_is_the_file(open_: Open, tmp_path: Path) -> None:
    assert open_().peer == str(tmp_path / "test.db")
    assert open_("sqlite3://:memory:").peer == ":memory:"

"""sqlite3 end to end: addresses, values, broken files, dead workers, big answers."""

from __future__ import annotations

import math
import os
import select
import signal
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trunkline
from tests.support.commands import run
from tests.support.sockets import SocketServer
from tests.support.statements import rows
from trunkline.errors import (
    ClosedError,
    DeadHandle,
    DialError,
    OperationTimeout,
    OutcomeUnknown,
    StatementError,
    TrunklineError,
)
from trunkline.proxy.connection import Connection
from trunkline.wire.documents import Json

SLOW = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def kill_worker(connection: Connection) -> int:
    """SIGKILL, and wait until the process is gone."""
    pid = connection.stats().pid
    watch = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        assert select.select([watch], [], [], 10)[0]
    finally:
        os.close(watch)
    return pid


def until_busy(connection: Connection) -> None:
    """Another thread's statement has the connection: a short one waits in vain."""
    while True:
        try:
            connection.exec("SELECT 1", timeout=50)
        except OperationTimeout:
            return


# addresses


def test_a_relative_file_is_in_the_callers_folder(tmp_path: Path) -> None:
    with trunkline.connect("sqlite3://test1.db") as conn:
        conn.exec("CREATE TABLE t (a)")
    assert (tmp_path / "test1.db").stat().st_size > 0


def test_the_settings_of_the_address_are_in_force() -> None:
    with trunkline.connect(
        "sqlite3://test.db?_journal_mode=WAL&_foreign_keys=1&_cache_size=77"
    ) as conn:
        assert rows(conn, "PRAGMA journal_mode") == [["wal"]]
        assert rows(conn, "PRAGMA foreign_keys") == [[1]]
        assert rows(conn, "PRAGMA cache_size") == [[77]]


@pytest.mark.parametrize("target", [":memory:", "file:shared.db?cache=shared&mode=memory"])
def test_a_database_in_memory_makes_no_file(target: str, tmp_path: Path) -> None:
    with trunkline.connect(f"sqlite3://{target}") as conn:
        conn.exec("CREATE TABLE t (a)")
        assert rows(conn, "SELECT count(*) FROM t") == [[0]]
    assert list(tmp_path.iterdir()) == []


def test_affected_and_last_id() -> None:
    with trunkline.connect("sqlite3://:memory:") as conn:
        conn.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
        assert conn.exec("INSERT INTO t (a) VALUES (1), (2)") == {
            "columns": [], "values": [], "affected": 2, "last_id": 2,
        }  # fmt: skip
        result = conn.exec("UPDATE t SET a = 3")
        assert result is not None
        assert result["affected"] == 2


def test_names_take_a_mapping() -> None:
    with trunkline.connect("sqlite3://:memory:") as conn:
        assert rows(conn, "SELECT :a, @b, $a", {"a": 1, "b": "x"}) == [[1, "x", 1]]
        with pytest.raises(StatementError, match=":b"):
            conn.exec("SELECT :a, :b", {"a": 1})


# values

_MOMENTS = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30))
_VALUES: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], Any]]] = {
    "INTEGER": (st.integers(-(1 << 63), (1 << 63) - 1), lambda value: value),
    "REAL": (st.floats(allow_nan=False), lambda value: value),
    "TEXT": (st.text(), lambda value: value),
    "BLOB": (st.binary(), lambda value: value),
    "BOOLEAN": (st.booleans(), lambda value: value),
    "DATE": (st.dates(), lambda value: value),
    "DATETIME": (_MOMENTS.map(lambda value: value.replace(tzinfo=UTC)), lambda value: value),
    "TEXT /* Decimal */": (st.decimals(), str),
    "TEXT /* UUID */": (st.uuids(), str),
    "TEXT /* time */": (st.times(), lambda value: value.isoformat()),
    "TEXT /* timedelta */": (st.timedeltas(), str),
    "ANY": (st.none(), lambda value: value),
}


@pytest.mark.parametrize("declared", _VALUES)
def test_values_come_back_as_the_driver_says(declared: str) -> None:
    strategy, expected = _VALUES[declared]
    with trunkline.connect("sqlite3://:memory:") as conn:
        conn.exec(f"CREATE TABLE t (value {declared})")

        @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
        @given(strategy)
        def there_and_back(value: Any) -> None:
            conn.exec("DELETE FROM t")
            conn.exec("INSERT INTO t VALUES (?)", value)
            found = rows(conn, "SELECT value FROM t")[0][0]
            assert (type(found), found) == (type(expected(value)), expected(value))

        there_and_back()


def test_values_without_a_type_of_their_own() -> None:
    with trunkline.connect("sqlite3://:memory:") as conn:
        assert rows(conn, "SELECT ?, ?, ?", math.nan, Json([1, {"a": None}]), Json({"k": "v"})) == [
            [None, '[1, {"a": null}]', '{"k": "v"}']
        ]
        binds = (
            Decimal("1.10"),
            UUID(int=5),
            timedelta(days=1),
            time(1, 2),
            date(2024, 1, 31),
            b"\0\xff",
        )
        assert rows(conn, "SELECT ?, ?, ?, ?, ?, ?", *binds) == [
            ["1.10", str(UUID(int=5)), "1 day, 0:00:00", "01:02:00", "2024-01-31", b"\0\xff"]
        ]


@pytest.mark.parametrize("value", [1 << 63, "\ud800", object])
def test_a_value_that_cannot_be_stored_is_refused(value: Any) -> None:
    with trunkline.connect("sqlite3://:memory:") as conn:
        with pytest.raises((StatementError, TypeError)):
            conn.exec("SELECT ?", value)
        assert rows(conn, "SELECT 1") == [[1]]


# bad files


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is not a database, but a text of some length" * 50)
    with pytest.raises(DialError, match="not an SQLite database"):
        trunkline.connect("sqlite3://text.db")
    assert trunkline.Dial("sqlite3://text.db") is None
    assert "not an SQLite database" in (trunkline.last_error() or "")


def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.db"
    with sqlite3.connect(path) as plain:
        plain.execute("CREATE TABLE t (a)")
        plain.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 200)
    plain.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    with trunkline.connect("sqlite3://bad.db") as conn:
        with pytest.raises(StatementError, match="damaged") as caught:
            conn.exec("SELECT * FROM t")
        assert str(caught.value.code).startswith("SQLITE_CORRUPT")
        assert rows(conn, "SELECT 1") == [[1]]


def test_a_folder_and_a_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DialError, match="folder"):
        trunkline.connect("sqlite3://folder")
    with pytest.raises(DialError, match="no folder"):
        trunkline.connect("sqlite3://missing/test.db")


def test_a_file_opened_for_reading_only(tmp_path: Path) -> None:
    with trunkline.connect("sqlite3://test.db") as conn:
        conn.exec("CREATE TABLE t (a)")
    with trunkline.connect("sqlite3://file:test.db?mode=ro") as conn:
        with pytest.raises(StatementError, match="cannot be written"):
            conn.exec("INSERT INTO t VALUES (1)")
        assert rows(conn, "SELECT count(*) FROM t") == [[0]]


def test_a_full_disk() -> None:
    """`max_page_count` is SQLite's own: it answers as it does when the disk has no room."""
    with trunkline.connect("sqlite3://test.db") as conn:
        conn.exec("CREATE TABLE t (a)")
        conn.exec("PRAGMA max_page_count = 10")
        with pytest.raises(StatementError, match="no space") as caught:
            conn.exec("INSERT INTO t VALUES (zeroblob(100000))")
        assert caught.value.code == "SQLITE_FULL"
        conn.exec("INSERT INTO t VALUES (1)")
        assert rows(conn, "SELECT a FROM t") == [[1]]


def test_a_lock_of_another_program_is_waited_for_until_the_deadline(tmp_path: Path) -> None:
    with trunkline.connect("sqlite3://test.db") as conn:
        conn.exec("CREATE TABLE t (a)")
        other = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        try:
            with pytest.raises(OperationTimeout):
                conn.exec("INSERT INTO t VALUES (1)", timeout=200)
        finally:
            other.close()
        conn.exec("INSERT INTO t VALUES (2)")
        assert rows(conn, "SELECT a FROM t") == [[2]]


# big


def test_a_huge_answer_does_not_stop_other_connections() -> None:
    echoes = 0
    sql = (
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 200000) "
        "SELECT x, 'row ' || x FROM c"
    )
    with (
        SocketServer() as server,
        trunkline.connect(server.url) as other,
        trunkline.connect("sqlite3://:memory:") as conn,
        ThreadPoolExecutor(1) as pool,
    ):
        big = pool.submit(rows, conn, sql)
        while not big.done():
            other.write("ping")
            assert other.read(5000) == "ping"
            echoes += 1
        found = big.result()
    assert len(found) == 200_000
    assert found[-1] == [200_000, "row 200000"]
    assert echoes > 0


def test_a_huge_text_and_its_error_line() -> None:
    with trunkline.connect("sqlite3://:memory:") as conn:
        assert rows(conn, "SELECT length('" + "x" * 3_000_000 + "')") == [[3_000_000]]
        assert rows(conn, "SELECT ? -- " + "c" * 900_000, "y") == [["y"]]
        with pytest.raises(StatementError) as caught:
            conn.exec("x" * 900_000)
        assert len(str(caught.value)) < 5000
        assert rows(conn, "SELECT 1") == [[1]]


# dead workers


def test_a_worker_killed_between_statements_is_replaced(tmp_path: Path) -> None:
    with trunkline.connect("sqlite3://test.db?_foreign_keys=1") as conn:
        conn.exec("CREATE TABLE t (a)")
        for number in range(3):
            pid = kill_worker(conn)
            conn.exec("INSERT INTO t VALUES (?)", number)
            assert conn.stats().pid != pid
        assert rows(conn, "SELECT a FROM t") == [[0], [1], [2]]
        assert rows(conn, "PRAGMA foreign_keys") == [[1]]


def test_a_worker_killed_in_a_statement_leaves_its_outcome_unknown(tmp_path: Path) -> None:
    with trunkline.connect("sqlite3://test.db") as conn, ThreadPoolExecutor(1) as pool:
        conn.exec("CREATE TABLE t (a)")
        pid = conn.stats().pid
        running = pool.submit(conn.exec, f"INSERT INTO t {SLOW}")
        until_busy(conn)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(OutcomeUnknown):
            running.result(20)
        assert rows(conn, "SELECT count(*) FROM t") == [[0]]  # and it was not run again


def test_a_worker_killed_in_a_transaction_rolls_it_back() -> None:
    with trunkline.connect("sqlite3://test.db") as conn:
        conn.exec("CREATE TABLE t (a)")
        with pytest.raises(StatementError, match="over"), conn.transaction():  # noqa: PT012 (the block is what is tested)
            conn.exec("INSERT INTO t VALUES (1)")
            kill_worker(conn)
            with pytest.raises(StatementError) as caught:
                conn.exec("INSERT INTO t VALUES (2)")
            assert caught.value.code == "TRANSACTION_OVER"
        assert rows(conn, "SELECT count(*) FROM t") == [[0]]


def test_a_worker_killed_in_a_bare_transaction_lets_nothing_slip_out_of_it() -> None:
    with trunkline.connect("sqlite3://test.db") as conn:
        conn.exec("CREATE TABLE t (a)")
        conn.exec("BEGIN")
        conn.exec("INSERT INTO t VALUES (1)")
        kill_worker(conn)
        with pytest.raises(StatementError, match="over"):
            conn.exec("INSERT INTO t VALUES (2)")
        conn.exec("INSERT INTO t VALUES (3)")
        assert rows(conn, "SELECT a FROM t") == [[3]]


@pytest.mark.parametrize("target", [":memory:", "file:named?mode=memory&cache=shared"])
def test_what_was_in_memory_is_said_to_be_gone(target: str) -> None:
    conn = trunkline.connect(f"sqlite3://{target}")
    conn.exec("CREATE TABLE t (a)")
    kill_worker(conn)
    with pytest.raises(DeadHandle, match="in memory, so the data is gone"):
        conn.exec("SELECT * FROM t")
    conn.close()


def test_closing_in_another_thread_ends_a_running_statement() -> None:
    conn = trunkline.connect("sqlite3://:memory:")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(conn.exec, SLOW)
        until_busy(conn)
        conn.close()
        with pytest.raises(TrunklineError):
            running.result(20)


def test_closing_in_another_thread_says_so_to_the_statements_that_wait_in_line() -> None:
    conn = trunkline.connect("sqlite3://:memory:")
    with ThreadPoolExecutor(4) as pool:
        running = pool.submit(conn.exec, SLOW)
        until_busy(conn)
        waiting = [pool.submit(conn.exec, "SELECT 1", timeout=60_000) for _ in range(3)]
        conn.close()
        with pytest.raises(TrunklineError):
            running.result(20)
        for statement in waiting:
            with pytest.raises(ClosedError):
                statement.result(20)


def test_a_connection_that_is_ended_says_of_waiting_statements_that_they_were_not_run() -> None:
    with trunkline.connect("sqlite3://:memory:") as conn, ThreadPoolExecutor(4) as pool:
        pool.submit(conn.exec, SLOW)
        until_busy(conn)
        waiting = [pool.submit(conn.exec, "SELECT 1", timeout=60_000) for _ in range(3)]
        until_busy(conn)
        assert run("kill", conn.stats().id).code == 0
        for statement in waiting:
            error = statement.exception(20)
            assert isinstance(error, TrunklineError)
            assert not isinstance(error, OutcomeUnknown)


def test_stats_count_statements_and_rows() -> None:
    with trunkline.connect("sqlite3://:memory:") as conn:
        rows(conn, "SELECT 1 UNION SELECT 2")
        rows(conn, "SELECT 1")
        stats = conn.stats()
        assert (stats.statements, stats.rows, stats.holders, stats.state) == (2, 3, 1, "open")


def test_misuse_raises_at_once() -> None:
    with trunkline.connect("sqlite3://:memory:") as conn:
        with pytest.raises(TypeError):
            conn.exec(5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="milliseconds"):
            conn.exec("SELECT 1", timeout=-1)


def test_two_threads_time_out_each_by_its_own_deadline() -> None:
    with trunkline.connect("sqlite3://:memory:") as conn:
        gate = threading.Barrier(4)

        def run(limit: int) -> type[BaseException] | None:
            gate.wait(20)
            try:
                conn.exec(SLOW, timeout=limit)
            except OperationTimeout as error:
                return type(error)
            return None

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(run, (50, 100, 150, 200))) == [OperationTimeout] * 4
        assert rows(conn, "SELECT 1") == [[1]]

"""One database connection, many holders: processes, threads, pickles."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sqlite3
import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

import trunkline
from tests.servers.clickhouse import ClickHouse
from tests.support.statements import rows
from trunkline.errors import ClosedError, DeadHandle
from trunkline.proxy.connection import Connection

SPAWN = multiprocessing.get_context("spawn")
PROCESSES, INSERTS = 8, 100


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Connection]:
    with trunkline.connect(f"sqlite3://{tmp_path}/test.db", linger=0.2) as connection:
        connection.exec("CREATE TABLE t (who, n)")
        yield connection


def _insert(handle: int, who: int) -> int:
    with trunkline.connect(handle) as connection:
        for n in range(INSERTS):
            result = connection.exec("INSERT INTO t VALUES (?, ?)", who, n)
            assert result is not None
            assert result["affected"] == 1
        return os.getpid()


def _insert_pickled(connection: Connection, who: int) -> int:
    connection.exec("INSERT INTO t VALUES (?, ?)", who, 0)
    return os.getpid()


def _handle(connection: Connection) -> int:
    number = connection.fd()
    assert number
    return number


def test_eight_processes_insert_through_one_handle(conn: Connection, tmp_path: Path) -> None:
    handle = _handle(conn)
    with ProcessPoolExecutor(PROCESSES, mp_context=SPAWN) as pool:
        pids = set(pool.map(_insert, [handle] * PROCESSES, range(PROCESSES)))
        assert os.getpid() not in pids
    assert rows(conn, "SELECT count(*), count(DISTINCT who * 1000 + n) FROM t") == [
        [PROCESSES * INSERTS, PROCESSES * INSERTS]
    ]
    with sqlite3.connect(tmp_path / "test.db") as plain:
        assert plain.execute("SELECT count(*) FROM t").fetchone() == (PROCESSES * INSERTS,)
    plain.close()


def test_memory_is_shared_too() -> None:
    with trunkline.connect("sqlite3://:memory:", linger=0.2) as conn:
        conn.exec("CREATE TABLE t (who, n)")
        with ProcessPoolExecutor(2, mp_context=SPAWN) as pool:
            list(pool.map(_insert, [_handle(conn)] * 2, range(2)))
        assert rows(conn, "SELECT count(*) FROM t") == [[2 * INSERTS]]


def test_a_pickled_connection_works_in_a_pool(conn: Connection) -> None:
    with ProcessPoolExecutor(2, mp_context=SPAWN) as pool:
        list(pool.map(_insert_pickled, [conn] * 6, range(6)))
    assert rows(conn, "SELECT who FROM t ORDER BY who") == [[n] for n in range(6)]


def test_a_forked_child_is_a_holder_of_its_own(conn: Connection) -> None:
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_insert_pickled, args=(conn, 1))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # 3.12 and later, about the threads here
        child.start()
    child.join(30)
    assert child.exitcode == 0
    child.close()
    assert rows(conn, "SELECT who FROM t") == [[1]]


def test_a_program_started_separately_uses_the_handle(conn: Connection) -> None:
    """It needs the same broker, which `TRUNKLINE_BROKER` names."""
    code = "import sys, trunkline; print(trunkline.Dial(int(sys.argv[1])).exec('SELECT 6 * 7')['values'])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(_handle(conn))],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[[42]]"


def test_the_handle_outlives_the_object_that_gave_it(tmp_path: Path) -> None:
    first = trunkline.connect("sqlite3://:memory:", linger=5)
    first.exec("CREATE TABLE t (a)")
    handle = _handle(first)
    first.close()
    with pytest.raises(ClosedError):
        first.exec("SELECT 1")
    with trunkline.connect(handle) as second, trunkline.connect(handle, linger=0.2) as third:
        second.exec("INSERT INTO t VALUES (1)")
        assert rows(third, "SELECT a FROM t") == [[1]]
        _end(second)


def _end(connection: Connection) -> None:
    """As `trunkline kill` does, so that the test need not wait for `linger`."""
    from trunkline.proxy import process
    from trunkline.wire.envelope import Kind

    process.get().link.ask_broker(Kind.KILL, connection.stats().id)


def test_a_handle_that_was_killed_is_dead(conn: Connection) -> None:
    handle = _handle(conn)
    _end(conn)
    assert trunkline.Dial(handle) is None
    assert "dial its address again" in (trunkline.last_error() or "")
    with pytest.raises(DeadHandle):
        trunkline.connect(12345)


def test_threads_share_one_object_and_others_of_the_same_handle(conn: Connection) -> None:
    handle = _handle(conn)

    def work(who: int) -> None:
        if who % 2:
            with trunkline.connect(handle) as own:
                own.exec("INSERT INTO t VALUES (?, 0)", who)
        else:
            conn.exec("INSERT INTO t VALUES (?, 0)", who)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert rows(conn, "SELECT count(DISTINCT who) FROM t") == [[40]]


def test_pickling_says_when_the_connection_has_ended(conn: Connection) -> None:
    conn.close()
    with pytest.raises((ClosedError, DeadHandle)):
        pickle.dumps(conn)


def _insert_from(handle: int, who: int, begin: object) -> list[str]:
    """Inserts a number that another one has too, now and then; what was said of each."""
    said = []
    with trunkline.connect(handle) as connection:
        begin.wait(30)  # type: ignore[attr-defined]
        for n in range(INSERTS):
            try:
                connection.exec("INSERT INTO u VALUES (?)", n if n % 10 == 0 else who * 1000 + n)
                said.append("")
            except trunkline.StatementError as error:
                said.append(str(error.code))
    return said


def test_inserts_that_are_committed_together_are_each_answered_for_themselves(
    conn: Connection,
) -> None:
    conn.exec("CREATE TABLE u (n INTEGER PRIMARY KEY)")
    with (
        multiprocessing.Manager() as manager,
        ProcessPoolExecutor(PROCESSES, mp_context=SPAWN) as pool,
    ):
        begin = manager.Barrier(PROCESSES)
        jobs = [
            pool.submit(_insert_from, _handle(conn), who, begin) for who in range(1, PROCESSES + 1)
        ]
        said = [job.result(60) for job in jobs]
    wrong = [code for each in said for code in each if code]
    shared = INSERTS // 10
    assert set(wrong) == {"SQLITE_CONSTRAINT_PRIMARYKEY"}
    assert len(wrong) == shared * (PROCESSES - 1)
    assert rows(conn, "SELECT count(*) FROM u") == [[PROCESSES * INSERTS - len(wrong)]]


def test_inserts_that_cannot_be_committed_together_are_run_alone(conn: Connection) -> None:
    conn.exec("CREATE TABLE u (n INTEGER PRIMARY KEY)")
    conn.exec(
        "CREATE TRIGGER no BEFORE INSERT ON u WHEN new.n % 10 = 0 BEGIN SELECT RAISE(ROLLBACK, 'tens'); END"
    )
    with (
        multiprocessing.Manager() as manager,
        ProcessPoolExecutor(PROCESSES, mp_context=SPAWN) as pool,
    ):
        begin = manager.Barrier(PROCESSES)
        jobs = [
            pool.submit(_insert_from, _handle(conn), who, begin) for who in range(1, PROCESSES + 1)
        ]
        said = [job.result(60) for job in jobs]
    assert [len([code for code in each if code]) for each in said] == [INSERTS // 10] * PROCESSES
    assert rows(conn, "SELECT count(*) FROM u") == [[PROCESSES * (INSERTS - INSERTS // 10)]]


def _insert_alone(handle: int, table: str, who: int, begin: object) -> None:
    with trunkline.connect(handle) as connection:
        begin.wait(30)  # type: ignore[attr-defined]
        for n in range(INSERTS):
            result = connection.exec(f"INSERT INTO {table} VALUES (?, ?)", who, n)
            assert result is not None
            assert result["affected"] == 1


def test_single_inserts_into_clickhouse_share_blocks(clickhouse: ClickHouse) -> None:
    """Each block is a part on the disk; one for each row is what the server cannot keep up with."""
    table = f"t{uuid.uuid4().hex[:12]}"
    blocks = f"SELECT max(max_block_number), count() FROM system.parts WHERE table = '{table}'"
    with trunkline.connect(f"clickhouse://u:p@{clickhouse.address}/default", linger=0.2) as conn:
        conn.exec(f"CREATE TABLE {table} (who Int32, n Int32) ENGINE = MergeTree ORDER BY n")
        with (
            multiprocessing.Manager() as manager,
            ProcessPoolExecutor(PROCESSES, mp_context=SPAWN) as pool,
        ):
            begin = manager.Barrier(PROCESSES)
            jobs = [
                pool.submit(_insert_alone, _handle(conn), table, who, begin)
                for who in range(PROCESSES)
            ]
            for job in jobs:
                job.result(120)
        all_rows = PROCESSES * INSERTS
        assert rows(conn, f"SELECT count(*), uniq(who * 1000 + n) FROM {table}") == [
            [all_rows, all_rows]
        ]
        assert rows(conn, blocks)[0][0] < all_rows * 0.8
        conn.exec(f"DROP TABLE {table}")

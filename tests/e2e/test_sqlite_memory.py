"""A named database in memory: whoever dials its name within one broker has the same one."""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

import trunkline
from tests.support.programs import Remains
from tests.support.statements import rows
from tests.support.waiting import until
from trunkline.errors import AddressError, DeadHandle, DialError, TrunklineError

SPAWN = multiprocessing.get_context("spawn")
WAIT_S = 30.0
SHARED = "sqlite3://file:test.db?cache=shared&mode=memory"


@pytest.mark.parametrize(
    "address",
    [
        SHARED,
        "sqlite3://file::memory:?cache=shared",
        "sqlite3://file:a%20b?mode=memory&cache=shared",
        "sqlite3://file:/shared?vfs=memdb",
    ],
)
def test_two_dials_of_one_name_are_one_database_until_the_last_is_closed(address: str) -> None:
    first = trunkline.connect(address, linger=0.2)
    first.exec("CREATE TABLE t (a)")
    second = trunkline.connect(address, linger=0.2)
    second.exec("INSERT INTO t VALUES (1)")
    assert rows(first, "SELECT a FROM t") == [[1]]
    assert first.stats().pid == second.stats().pid
    assert first.stats().holders == 2
    first.close()
    assert rows(second, "SELECT a FROM t") == [[1]]
    second.close()
    with trunkline.connect(address, linger=0.2) as third:
        assert rows(third, "SELECT count(*) FROM sqlite_master") == [[0]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sqlite3://:memory:", "sqlite3://:memory:"),
        ("sqlite3://file:x?mode=memory", "sqlite3://file:x?mode=memory"),
        ("sqlite3://file:x?mode=memory&cache=shared", "sqlite3://file:y?mode=memory&cache=shared"),
        ("sqlite3://file:x?mode=memory&cache=shared", "sqlite3://file:x?mode=memory&cache=private"),
        ("sqlite3://file:/x?mode=memory&cache=shared", "sqlite3://file:/x?vfs=memdb"),
        ("sqlite3://file:x?vfs=memdb", "sqlite3://file:x?vfs=memdb"),
    ],
)
def test_others_are_databases_of_their_own(one: str, other: str) -> None:
    with (
        trunkline.connect(one, linger=0.2) as first,
        trunkline.connect(other, linger=0.2) as second,
    ):
        first.exec("CREATE TABLE t (a)")
        assert rows(second, "SELECT count(*) FROM sqlite_master") == [[0]]


def test_processes_and_threads_that_dial_at_once_have_the_same() -> None:
    with (
        ProcessPoolExecutor(2, mp_context=SPAWN) as processes,
        ThreadPoolExecutor(6) as threads,
        trunkline.connect(SHARED, linger=0.2) as keeper,
    ):
        keeper.exec("CREATE TABLE t (a)")
        jobs = [pool.submit(insert, 10) for pool in (processes, threads) for _ in range(4)]
        for job in jobs:
            job.result(WAIT_S)
        assert rows(keeper, "SELECT count(*) FROM t") == [[80]]


def test_first_dials_at_the_same_moment_are_one() -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: trunkline.connect(SHARED, linger=0.2), range(8)))
    assert len({connection.stats().pid for connection in found}) == 1
    for connection in found:
        connection.close()


def insert(count: int) -> None:
    with trunkline.connect(SHARED, linger=0.2) as db:
        for n in range(count):
            db.exec("INSERT INTO t VALUES (?)", n)


def test_a_transaction_of_one_dial_keeps_the_other_out() -> None:
    with (
        trunkline.connect(SHARED, linger=0.2) as one,
        trunkline.connect(SHARED, linger=0.2) as other,
    ):
        one.exec("CREATE TABLE t (a)")
        with pytest.raises(TrunklineError, match="shared"):
            one.exec("BEGIN")
        with one.transaction():
            one.exec("INSERT INTO t VALUES (1)")
            with pytest.raises(TrunklineError, match="transaction"):
                other.exec("SELECT * FROM t", timeout=100)
        assert rows(other, "SELECT a FROM t") == [[1]]


def test_the_first_dials_parameters_hold_and_another_one_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        trunkline.connect(f"{SHARED}&_fk=1", linger=0.2),
        trunkline.connect(SHARED, linger=0.2) as other,
    ):
        assert rows(other, "PRAGMA foreign_keys") == [[1]]
        until(lambda: "stays as it was dialled first" in caplog.text, "the line in the log")


def test_a_database_whose_worker_died_is_gone_and_the_next_dial_begins_anew() -> None:
    first, second = (trunkline.connect(SHARED, linger=0.2) for _ in range(2))
    first.exec("CREATE TABLE t (a)")
    os.kill(first.stats().pid, signal.SIGKILL)
    for each in (first, second):
        until(lambda each=each: is_gone(each), "the end told")  # type: ignore[misc]
    with trunkline.connect(SHARED, linger=0.2) as again:
        assert rows(again, "SELECT count(*) FROM sqlite_master") == [[0]]
    first.close()
    second.close()


def is_gone(connection: trunkline.Connection) -> bool:
    try:
        connection.exec("SELECT * FROM t")
    except DeadHandle:
        return True
    except TrunklineError:
        pass
    return False


def test_who_closes_the_last_and_dials_again_has_an_empty_one() -> None:
    for n in range(50):
        with trunkline.connect(SHARED, linger=0.2) as db:
            assert rows(db, "SELECT count(*) FROM sqlite_master") == [[0]], n
            db.exec("CREATE TABLE t (a)")


def test_a_name_that_could_not_be_opened_may_be_tried_again() -> None:
    for _ in range(2):
        with pytest.raises(DialError):
            trunkline.connect(f"{SHARED}&_pragma=encoding('none')", linger=0.2)
    trunkline.connect(SHARED, linger=0.2).close()


@pytest.mark.own_broker
def test_another_broker_knows_the_name_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    remains = Remains()
    with trunkline.connect(SHARED, linger=0.2) as first:
        first.exec("CREATE TABLE t (a)")
        remains.broker().kill()
        with trunkline.connect(SHARED, linger=0.2) as second:
            second.exec("INSERT INTO t VALUES (1)")
            assert rows(first, "SELECT a FROM t") == [[1]]
            assert first.stats().pid == second.stats().pid


def test_a_database_in_memory_needs_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with trunkline.connect("sqlite3://:memory:") as db:
        assert db.exec("SELECT 1")["values"] == [[1]]
    with pytest.raises(AddressError, match="the current folder is gone"):
        trunkline.connect("sqlite3://x.db")

"""A ClickHouse server that restarts, dies, freezes, or stops a statement: what its connections see."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial

import pytest

import trunkline
from tests.servers.clickhouse import ClickHouse
from tests.support.statements import back, rows
from tests.support.waiting import Background, until
from trunkline.deadline import Deadline
from trunkline.errors import (
    DialError,
    OperationTimeout,
    OutcomeUnknown,
    StatementError,
    TrunklineError,
)
from trunkline.proxy.connection import Connection
from trunkline.testing.faultproxy import FaultProxy

ENDLESS = "SELECT count() FROM system.numbers"


@pytest.fixture
def server(start_server: Callable[..., ClickHouse]) -> ClickHouse:
    return start_server(ClickHouse)


@pytest.fixture
def db(server: ClickHouse) -> Iterator[Connection]:
    address = f"clickhouse://u:p@{server.address}/default?max_threads=3"
    with trunkline.connect(address, linger=0.2) as connection:
        connection.exec("CREATE TABLE IF NOT EXISTS log (n UInt64) ENGINE = MergeTree ORDER BY n")
        yield connection


@pytest.fixture
def admin(server: ClickHouse) -> Iterator[Connection]:
    """Another connection to the same server."""
    with trunkline.connect(f"clickhouse://u:p@{server.address}/default", linger=0.2) as connection:
        yield connection


def running(admin: Connection, text: str) -> list[str]:
    """The ids of such statements that run, as the server tells."""
    sql = "SELECT query_id FROM system.processes WHERE startsWith(query, ?)"
    return [row[0] for row in rows(admin, sql, text)]


def threads(db: Connection) -> str:
    [[value]] = rows(db, "SELECT value FROM system.settings WHERE name = 'max_threads'")
    return str(value)


def test_a_restart_between_statements_is_not_noticed(server: ClickHouse, db: Connection) -> None:
    assert threads(db) == "3"
    server.kill()
    server.start()
    assert threads(db) == "3"
    assert db.stats().reconnects == 1


def test_a_server_that_is_away_is_told_and_found_again(server: ClickHouse, db: Connection) -> None:
    server.kill()
    with pytest.raises(TrunklineError, match="cannot be reached"):
        db.exec("SELECT 1", timeout=5000)
    server.start()
    back(db)
    assert threads(db) == "3"


def test_a_statement_whose_server_dies_has_an_unknown_outcome_and_is_not_run_again(
    server: ClickHouse, db: Connection, admin: Connection
) -> None:
    db.exec("INSERT INTO log VALUES (1)")
    slow = Background(lambda: db.exec("INSERT INTO log SELECT 2 + sleep(1) FROM system.numbers"))
    until(lambda: running(admin, "INSERT INTO log SELECT 2"), "the statement begun")
    server.kill()
    with pytest.raises(OutcomeUnknown):
        slow.result()
    server.start()
    back(db)
    assert rows(db, "SELECT n FROM log WHERE n < 2") == [[1]]
    assert running(db, "INSERT INTO log SELECT 2") == []


def test_a_query_whose_server_dies_ends_with_an_error(server: ClickHouse, db: Connection) -> None:
    found = db.query("SELECT number FROM system.numbers")
    assert found is not None
    assert next(found) == [0]
    server.kill()
    with pytest.raises(TrunklineError):
        list(found)
    server.start()
    back(db)


def test_a_frozen_server_keeps_nobody_longer_than_his_deadline(
    server: ClickHouse, db: Connection
) -> None:
    server.freeze()
    try:
        with pytest.raises((OperationTimeout, OutcomeUnknown)):
            db.exec("SELECT 1", timeout=500)
    finally:
        server.thaw()
    back(db)
    assert threads(db) == "3"


def test_a_server_that_freezes_under_a_statement(
    server: ClickHouse, db: Connection, admin: Connection
) -> None:
    slow = Background(lambda: db.exec(ENDLESS, timeout=1500))
    until(lambda: running(admin, ENDLESS), "the statement begun")
    server.freeze()
    try:
        with pytest.raises((OperationTimeout, OutcomeUnknown)):
            slow.result()
    finally:
        server.thaw()
    back(db)
    until(lambda: not running(admin, ENDLESS), "the statement stopped on the server")


def test_a_timeout_stops_the_statement_on_the_server(db: Connection, admin: Connection) -> None:
    kept = False
    for _ in range(
        5
    ):  # where the order to stop comes late, because the machine is busy, the link is broken
        before = db.stats().reconnects
        with pytest.raises((OperationTimeout, OutcomeUnknown)):
            db.exec(ENDLESS, timeout=200)
        until(lambda: not running(admin, ENDLESS), "the statement stopped on the server")
        assert rows(db, "SELECT 1") == [[1]]
        kept = db.stats().reconnects == before
        if kept:
            break
    assert kept


def test_a_timeout_stops_a_bulk_insert_that_the_server_is_slow_with(server: ClickHouse) -> None:
    with FaultProxy(server.port) as proxy:
        address = f"clickhouse://u:p@{proxy.address}/default"
        with trunkline.connect(address, linger=0.2) as db:
            db.exec("CREATE TABLE slow (n UInt64) ENGINE = Memory")
            proxy.slow(bytes_per_s=20_000, way="up")
            with pytest.raises((OperationTimeout, OutcomeUnknown)):
                db.executemany(
                    "INSERT INTO slow VALUES", [(n,) for n in range(100_000)], timeout=500
                )
            proxy.heal()
            back(db)
            # this server cannot stop an INSERT that it receives: the link was broken instead
            assert rows(db, "SELECT count() FROM slow") in ([[0]], [[100_000]])


def test_a_user_who_may_not_kill_stops_his_statement_by_leaving(
    server: ClickHouse, admin: Connection
) -> None:
    with trunkline.connect(
        f"clickhouse://u:p@{server.address}/default?readonly=1", linger=0.2
    ) as db:
        with pytest.raises(TrunklineError):
            db.exec(ENDLESS, timeout=300)
        until(lambda: not running(admin, ENDLESS), "the statement stopped on the server")
        back(db)


def test_a_statement_that_an_admin_kills_says_so(db: Connection, admin: Connection) -> None:
    slow = Background(lambda: db.exec(ENDLESS))
    until(lambda: running(admin, ENDLESS), "the statement begun")
    for query_id in running(admin, ENDLESS):
        admin.exec(f"KILL QUERY WHERE query_id = '{query_id}'")
    with pytest.raises(StatementError) as caught:
        slow.result()
    assert caught.value.code == 394
    assert rows(db, "SELECT 1") == [[1]]


def test_a_password_that_changes_is_asked_for_with_the_next_dial(server: ClickHouse) -> None:
    users = (server.folder / "users.xml").read_text()
    default = f"clickhouse://{server.address}/default"
    with FaultProxy(server.port) as proxy, trunkline.connect(default, linger=0.2) as admin:
        address = f"clickhouse://u:p@{proxy.address}/default"
        with trunkline.connect(address, linger=0.2) as db:
            server.write("users.xml", users.replace("<password>p<", "<password>other<"))
            admin.exec("SYSTEM RELOAD CONFIG")
            assert rows(db, "SELECT 1") == [[1]]  # the link was let in before
            proxy.cut()
            with pytest.raises(TrunklineError, match="refused the login") as caught:
                db.exec("SELECT 1")
            assert caught.value.code == 193
            server.write("users.xml", users)
            admin.exec("SYSTEM RELOAD CONFIG")
            assert rows(db, "SELECT 1") == [[1]]


def test_a_link_that_breaks_silently_is_opened_again_before_the_statement(
    server: ClickHouse,
) -> None:
    with FaultProxy(server.port) as proxy:
        address = f"clickhouse://u:p@{proxy.address}/default"
        with trunkline.connect(address, linger=0.2) as db:
            db.exec("CREATE TABLE once (n UInt8) ENGINE = Memory")
            proxy.cut()
            db.exec("INSERT INTO once VALUES (1)")
            proxy.reset()
            db.exec("INSERT INTO once VALUES (2)")
            assert rows(db, "SELECT n FROM once ORDER BY n") == [[1], [2]]
            assert db.stats().reconnects >= 1


def test_many_threads_outlive_a_restart(server: ClickHouse, db: Connection) -> None:
    done = threading.Event()
    failed: list[Exception] = []

    def work() -> None:
        while not done.is_set():
            try:
                assert rows(db, "SELECT 1") == [[1]]
            except TrunklineError as error:
                failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    server.kill()
    server.start()
    back(db)
    done.set()
    for worker in workers:
        worker.join(20)
    assert all(isinstance(error, (OutcomeUnknown, DialError, TrunklineError)) for error in failed)
    assert rows(db, "SELECT 1") == [[1]]


def test_one_who_leaves_does_not_break_the_block_that_others_share(clickhouse: ClickHouse) -> None:
    with FaultProxy(clickhouse.port) as proxy, ExitStack() as stack:
        address = f"clickhouse://u:p@127.0.0.1:{proxy.port}/default"
        db = stack.enter_context(trunkline.connect(address, linger=0.2))
        look = stack.enter_context(
            trunkline.connect(f"clickhouse://u:p@{clickhouse.address}/default")
        )
        table = f"t{uuid.uuid4().hex[:12]}"
        db.exec(f"CREATE TABLE {table} (n Int32) ENGINE = MergeTree ORDER BY n")
        holders = [stack.enter_context(trunkline.connect(db.fd() or 0)) for _ in range(3)]
        insert = f"INSERT INTO {table} VALUES (?)"
        slow = Background(lambda: db.exec(f"SELECT sleep(2.5), '{table}'"))
        until(lambda: running(look, f"SELECT sleep(2.5), '{table}'"), "the statement before them")
        waiting = [Background(partial(holder.exec, insert, n)) for n, holder in enumerate(holders)]
        proxy.stall("up")
        slow.result()
        holders[0].close()
        longer = Deadline(2.5)  # than an interrupted statement is waited for
        until(longer.expired, "the end of the patience with a statement that nobody wants")
        proxy.heal()
        assert [each.result()["affected"] for each in waiting[1:]] == [1, 1]  # type: ignore[index]
        with suppress(TrunklineError):
            waiting[0].result()
        assert rows(look, f"SELECT n FROM {table} WHERE n > 0 ORDER BY n") == [[1], [2]]
        look.exec(f"DROP TABLE {table}")

"""postgres, servers that are restarted, killed, frozen, or that end a connection: what the caller is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import trunkline
from tests.servers.postgres import Postgres
from tests.support.postgres_side import ask, own_schema, until_runs
from tests.support.statements import back, rows
from tests.support.waiting import Background
from trunkline.errors import OperationTimeout, OutcomeUnknown, StatementError, TrunklineError
from trunkline.proxy.connection import Connection

SETTINGS = "?work_mem=123kB&timezone=Asia/Tokyo"


@pytest.fixture
def server(start_server: Callable[..., Postgres]) -> Postgres:
    server = start_server(Postgres)
    ask(server, "CREATE TABLE t (id INT)")
    ask(
        server, "CHECKPOINT"
    )  # it would not survive a kill: the tests' servers do not write at once
    return server


@pytest.fixture
def conn(server: Postgres) -> Iterator[Connection]:
    with trunkline.connect(
        f"postgres://u:p@{server.address}/postgres{SETTINGS}", linger=0.2
    ) as connection:
        yield connection


def settings(conn: Connection) -> list[list[Any]]:
    return rows(conn, "SELECT current_setting('work_mem'), current_setting('timezone')")


def pid(conn: Connection) -> int:
    return int(rows(conn, "SELECT pg_backend_pid()")[0][0])


def test_a_restarted_server_is_dialled_again_with_the_settings_of_the_address(
    server: Postgres, conn: Connection
) -> None:
    assert settings(conn) == [["123kB", "Asia/Tokyo"]]
    conn.exec("SET work_mem = '1MB'")
    server.restart()
    assert settings(conn) == [["123kB", "Asia/Tokyo"]]
    assert conn.stats().reconnects == 1


def test_a_server_that_is_away_is_an_error_until_it_is_back(
    server: Postgres, conn: Connection
) -> None:
    server.stop()
    for _ in range(2):
        with pytest.raises(TrunklineError, match="refused"):
            conn.exec("SELECT 1")
    server.start()
    assert rows(conn, "SELECT 1") == [[1]]


def test_a_statement_whose_server_is_killed_is_never_run_again(
    server: Postgres, conn: Connection
) -> None:
    running = Background(lambda: conn.exec("INSERT INTO t SELECT 1 FROM pg_sleep(300)"))
    until_runs(server, "INSERT INTO t")
    server.kill()
    with pytest.raises(OutcomeUnknown):
        running.result()
    server.start()
    assert rows(conn, "SELECT count(*) FROM t") == [[0]]
    assert ask(
        server, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO t%'"
    ) == [(0,)]


def test_a_server_that_is_killed_in_a_transaction_rolls_it_back(
    server: Postgres, conn: Connection
) -> None:
    with pytest.raises(StatementError, match="begin it again"), conn.transaction():  # noqa: PT012
        conn.exec("INSERT INTO t VALUES (1)")
        server.kill()
        server.start()
        conn.exec("INSERT INTO t VALUES (2)")
    with conn.transaction():
        conn.exec("INSERT INTO t VALUES (3)")
    assert rows(conn, "SELECT id FROM t") == [[3]]


def test_a_frozen_server_does_not_stop_the_clock(server: Postgres, conn: Connection) -> None:
    rows(conn, "SELECT 1")
    server.freeze()
    try:
        with pytest.raises((OperationTimeout, OutcomeUnknown)):
            conn.exec("INSERT INTO t VALUES (1)", timeout=300)
        with pytest.raises(TrunklineError):
            conn.exec("SELECT 1", timeout=300)
    finally:
        server.thaw()
    back(conn)
    assert settings(conn) == [["123kB", "Asia/Tokyo"]]
    assert rows(conn, "SELECT count(*) <= 1 FROM t") == [[True]]


def test_a_password_that_was_changed_is_told_and_the_old_one_works_again(
    server: Postgres, conn: Connection
) -> None:
    ask(server, "CREATE USER other PASSWORD 'Old1Secret'")
    address = f"postgres://other:Old1Secret@{server.address}/postgres"
    with trunkline.connect(address, linger=0.2) as theirs:
        assert rows(theirs, "SELECT 1") == [[1]]
        ask(server, "ALTER USER other PASSWORD 'new'")
        assert rows(theirs, "SELECT 1") == [[1]]  # the link is as good as before
        ask(server, "SELECT pg_terminate_backend(%s, 10000)", pid(theirs))
        for _ in range(2):
            with pytest.raises(TrunklineError, match="password authentication failed") as caught:
                theirs.exec("SELECT 1")
            assert "Old1Secret" not in str(caught.value)
        ask(server, "ALTER USER other PASSWORD 'Old1Secret'")
        assert rows(theirs, "SELECT 1") == [[1]]


def test_an_idle_connection_that_an_admin_ends_is_dialled_again(
    server: Postgres, conn: Connection
) -> None:
    before = pid(conn)
    ask(server, "SELECT pg_terminate_backend(%s, 10000)", before)
    assert settings(conn) == [["123kB", "Asia/Tokyo"]]
    assert pid(conn) != before


def test_a_statement_that_an_admin_ends_with_its_connection_is_unknown(
    server: Postgres, conn: Connection
) -> None:
    before = pid(conn)
    running = Background(lambda: conn.exec("SELECT pg_sleep(300), 'end me'"))
    until_runs(server, "end me")
    ask(server, "SELECT pg_terminate_backend(%s)", before)
    with pytest.raises(OutcomeUnknown):
        running.result()
    assert rows(conn, "SELECT 1") == [[1]]


def test_a_statement_that_an_admin_cancels_is_refused(server: Postgres, conn: Connection) -> None:
    before = pid(conn)
    running = Background(lambda: conn.exec("SELECT pg_sleep(300), 'cancel me'"))
    until_runs(server, "cancel me")
    ask(server, "SELECT pg_cancel_backend(%s)", before)
    with pytest.raises(StatementError) as caught:
        running.result()
    assert caught.value.code == "57014"
    assert pid(conn) == before


def test_a_query_whose_link_is_ended_says_so(server: Postgres, conn: Connection) -> None:
    with conn.query("SELECT n, 'many' FROM generate_series(1, 1000000) n") or [] as found:
        next(found)
        ask(
            server,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%trunkline_%' "
            "AND pid <> pg_backend_pid()",
        )
        with pytest.raises(TrunklineError):
            list(found)
    assert rows(conn, "SELECT 1") == [[1]]


def test_a_timeout_ends_the_statement_on_the_server(postgres: Postgres) -> None:
    with own_schema(postgres) as schema:
        address = f"postgres://u:p@{postgres.address}/postgres?search_path={schema}"
        with trunkline.connect(address, linger=0.2) as conn:
            before = pid(conn)
            with pytest.raises(OperationTimeout):
                conn.exec("SELECT pg_sleep(300), 'time me out'", timeout=300)
            until_runs(postgres, "time me out", 0)
            assert pid(conn) == before


def test_the_statements_of_others_go_on_after_a_timeout(postgres: Postgres) -> None:
    with trunkline.connect(f"postgres://u:p@{postgres.address}/postgres", linger=0.2) as conn:
        for number in range(20):
            with pytest.raises(OperationTimeout):
                conn.exec("SELECT pg_sleep(300)", timeout=20)
            assert rows(conn, "SELECT ?", number) == [[number]]

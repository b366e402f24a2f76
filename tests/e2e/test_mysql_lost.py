"""A MySQL server that restarts, dies, freezes, or ends a link: what holders of the connection see."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import trunkline
from tests.servers.mariadb import MariaDb
from tests.support.statements import back, rows
from tests.support.waiting import Background, until
from trunkline.errors import (
    BrokenError,
    DialError,
    OperationTimeout,
    OutcomeUnknown,
    StatementError,
    TrunklineError,
)
from trunkline.proxy.connection import Connection


@pytest.fixture
def server(start_server: Callable[..., MariaDb]) -> MariaDb:
    return start_server(MariaDb)


@pytest.fixture
def db(server: MariaDb) -> Iterator[Connection]:
    params = "sql_mode=%27ANSI_QUOTES%27&charset=utf8mb4&collation=utf8mb4_bin"
    with trunkline.connect(
        f"mysql://u:p@tcp({server.address})/t?{params}", linger=0.2
    ) as connection:
        connection.exec(
            "SET GLOBAL innodb_flush_log_at_trx_commit = 1"
        )  # what a killed server said holds
        connection.exec("CREATE TABLE IF NOT EXISTS log (n INT) ENGINE=InnoDB")
        yield connection


@pytest.fixture
def admin(server: MariaDb) -> Iterator[Connection]:
    """Another connection to the same server."""
    with trunkline.connect(f"mysql://u:p@tcp({server.address})/t", linger=0.2) as connection:
        yield connection


def settings(db: Connection) -> list[Any]:
    return rows(db, "SELECT @@sql_mode, @@collation_connection, @@autocommit")[0]


def running(admin: Connection, text: str, for_ms: int = 0) -> list[int]:
    """The links on which such a statement runs, for so long at least, as the server tells."""
    sql = "SELECT id FROM information_schema.processlist WHERE info LIKE ? AND time_ms >= ? AND id <> ?"
    me = rows(admin, "SELECT CONNECTION_ID()")[0][0]
    return [row[0] for row in rows(admin, sql, f"{text}%", for_ms, me)]


def test_a_restart_between_statements_is_not_noticed(server: MariaDb, db: Connection) -> None:
    before = settings(db)
    assert before == ["ANSI_QUOTES", "utf8mb4_bin", 1]
    server.restart()
    assert settings(db) == before
    assert db.stats().reconnects == 1


def test_a_server_that_is_away_is_told_and_found_again(server: MariaDb, db: Connection) -> None:
    server.stop()
    with pytest.raises(TrunklineError, match="cannot reach"):
        db.exec("SELECT 1", timeout=5000)
    server.start()
    back(db)
    assert settings(db)[0] == "ANSI_QUOTES"


def test_a_statement_whose_server_dies_has_an_unknown_outcome_and_is_not_run_again(
    server: MariaDb, db: Connection, admin: Connection
) -> None:
    db.exec("INSERT INTO log VALUES (1)")
    slow = Background(lambda: db.exec("INSERT INTO log SELECT 2 + SLEEP(600)"))
    until(lambda: running(admin, "INSERT"), "the statement begun")
    server.kill()
    with pytest.raises(OutcomeUnknown):
        slow.result()
    server.start()
    back(db)
    assert rows(db, "SELECT n FROM log") == [[1]]


def test_a_transaction_whose_server_dies_is_rolled_back(server: MariaDb, db: Connection) -> None:
    with pytest.raises(StatementError), db.transaction():  # noqa: PT012 (the block is what is tested)
        db.exec("INSERT INTO log VALUES (1)")
        server.kill()
        server.start()
        db.exec("INSERT INTO log VALUES (2)")
    with db.transaction():
        db.exec("INSERT INTO log VALUES (3)")
    assert rows(db, "SELECT n FROM log") == [[3]]


def test_many_rows_whose_server_dies_are_written_wholly_or_not(
    server: MariaDb, db: Connection, admin: Connection
) -> None:
    db.exec("CREATE TABLE many (n INT PRIMARY KEY, x TEXT) ENGINE=InnoDB")
    with pytest.raises(TrunklineError), admin.transaction():  # noqa: PT012 (the block is what is tested)
        admin.exec("INSERT INTO many VALUES (4000, 'in the way')")
        job = Background(
            lambda: db.executemany(
                "INSERT INTO many VALUES (?, ?)", [(n, "x" * 1000) for n in range(5000)]
            )
        )
        until(lambda: running(admin, "INSERT INTO many", 300), "the bulk waits")
        server.kill()
        with pytest.raises(OutcomeUnknown):
            job.result()
        server.start()
    back(db)
    assert rows(db, "SELECT COUNT(*) FROM many") == [[0]]


def test_a_frozen_server_does_not_outlast_the_deadline(server: MariaDb, db: Connection) -> None:
    server.freeze()
    with pytest.raises((OperationTimeout, OutcomeUnknown)):
        db.exec("INSERT INTO log VALUES (1)", timeout=300)
    with pytest.raises((OperationTimeout, OutcomeUnknown, DialError)):
        db.exec("SELECT 1", timeout=300)
    server.thaw()
    back(db)
    assert settings(db)[0] == "ANSI_QUOTES"
    assert rows(db, "SELECT COUNT(*) FROM log") in ([[0]], [[1]])


def test_a_frozen_server_does_not_keep_anybody_from_dialling_in_vain_for_ever(
    server: MariaDb,
) -> None:
    server.freeze()
    with pytest.raises(DialError, match="did not answer as a MySQL server does"):
        trunkline.connect(f"mysql://u:p@tcp({server.address})/t", 0.8)
    server.thaw()
    with trunkline.connect(f"mysql://u:p@tcp({server.address})/t", linger=0.2) as db:
        back(db)


def test_a_password_that_was_changed_is_told_and_the_connection_comes_back(
    server: MariaDb, admin: Connection
) -> None:
    admin.exec("CREATE TABLE IF NOT EXISTS log (n INT)")
    with trunkline.connect(f"mysql://limited:p@tcp({server.address})/t", linger=0.2) as db:
        number = rows(db, "SELECT CONNECTION_ID()")[0][0]
        root = f"mysql://root@unix({server.unix_socket})/mysql"
        with trunkline.connect(root, linger=0.2) as owner:
            owner.exec("ALTER USER limited@'127.0.0.1' IDENTIFIED BY 'S3cret!'")
            owner.exec(f"KILL {number}")
            for _ in range(2):
                with pytest.raises(TrunklineError, match="Access denied") as caught:
                    db.exec("SELECT 1")
                assert caught.value.code == 1045
            owner.exec("ALTER USER limited@'127.0.0.1' IDENTIFIED BY 'p'")
        assert rows(db, "SELECT COUNT(*) FROM log") == [[0]]


def test_a_transaction_that_cannot_be_rolled_back_ends_with_its_link(db: Connection) -> None:
    db.exec("XA START 'x'")
    with trunkline.connect(db.fd() or 0) as other:
        db.exec("INSERT INTO log VALUES (1)")
        db.close()
        assert rows(other, "SELECT COUNT(*) FROM log") == [[0]]


@pytest.mark.parametrize(
    "sql",
    ["/*!50000 START TRANSACTION */", "/*M! BEGIN */", "/*!COMMIT*/", "XA START 'x'", "BEGIN"],
)
def test_no_spelling_ends_a_block_unseen(db: Connection, sql: str) -> None:
    with pytest.raises(StatementError, match="was refused"), db.transaction():  # noqa: PT012
        db.exec("INSERT INTO log VALUES (1)")
        db.exec(sql)
    assert rows(db, "SELECT COUNT(*) FROM log") == [[0]]


def test_a_killed_connection_is_dialled_again(db: Connection, admin: Connection) -> None:
    for _ in range(3):
        admin.exec(f"KILL {rows(db, 'SELECT CONNECTION_ID()')[0][0]}")
        assert settings(db)[0] == "ANSI_QUOTES"
    assert db.stats().reconnects == 3


def test_a_connection_that_is_killed_in_its_statement_has_an_unknown_outcome(
    db: Connection, admin: Connection
) -> None:
    slow = Background(lambda: db.exec("DO SLEEP(600)"))
    until(lambda: running(admin, "DO SLEEP"), "the statement begun")
    admin.exec(f"KILL {running(admin, 'DO SLEEP')[0]}")
    with pytest.raises(OutcomeUnknown):
        slow.result()
    assert settings(db)[0] == "ANSI_QUOTES"


def test_a_connection_that_is_killed_in_a_transaction_ends_its_block(
    db: Connection, admin: Connection
) -> None:
    with pytest.raises(StatementError), db.transaction():  # noqa: PT012 (the block is what is tested)
        db.exec("INSERT INTO log VALUES (1)")
        admin.exec(f"KILL {rows(db, 'SELECT CONNECTION_ID()')[0][0]}")
        db.exec("INSERT INTO log VALUES (2)")
    assert rows(db, "SELECT COUNT(*) FROM log") == [[0]]


def test_an_idle_link_that_the_server_ends_is_dialled_again(
    server: MariaDb, admin: Connection
) -> None:
    address = f"mysql://u:p@tcp({server.address})/t?wait_timeout=1"
    with trunkline.connect(address, linger=0.2) as db:
        number = rows(db, "SELECT CONNECTION_ID()")[0][0]
        sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE id = ?"
        until(lambda: rows(admin, sql, number) == [[0]], "the idle link ended")
        assert rows(db, "SELECT @@wait_timeout, CONNECTION_ID() > ?", number) == [[1, 1]]


def test_a_timeout_stops_the_statement_on_the_server(db: Connection, admin: Connection) -> None:
    kept = False
    for _ in range(
        5
    ):  # where the order to stop comes late, because the machine is busy, the link is broken
        number = rows(db, "SELECT CONNECTION_ID()")[0][0]
        with pytest.raises((OperationTimeout, OutcomeUnknown)):
            db.exec("SELECT SLEEP(600)", timeout=300)
        until(lambda: running(admin, "SELECT SLEEP") == [], "the statement stopped on the server")
        kept = rows(db, "SELECT CONNECTION_ID()") == [[number]]
        if kept:
            break
    assert kept


def test_a_timeout_stops_a_bulk_and_nothing_of_it_stays(db: Connection, admin: Connection) -> None:
    db.exec("CREATE TABLE many (n INT PRIMARY KEY, x TEXT) ENGINE=InnoDB")
    with admin.transaction():
        admin.exec("INSERT INTO many VALUES (4000, 'in the way')")
        with pytest.raises(OperationTimeout):
            db.executemany(
                "INSERT INTO many VALUES (?, ?)",
                [(n, "x" * 1000) for n in range(5000)],
                timeout=700,
            )
    assert rows(db, "SELECT n FROM many") == [[4000]]
    with db.transaction():
        db.exec("DELETE FROM many")


def test_a_query_whose_server_dies_ends_with_an_error(server: MariaDb, db: Connection) -> None:
    found = db.query("SELECT seq, REPEAT('x', 1000) FROM seq_1_to_1000000")
    assert found is not None
    next(found)
    server.kill()
    with pytest.raises((BrokenError, OutcomeUnknown)):
        list(found)
    server.start()
    back(db)


def test_a_closed_query_leaves_nothing_running_on_the_server(
    db: Connection, admin: Connection
) -> None:
    found = db.query("SELECT a.seq FROM seq_1_to_1000000 a, seq_1_to_1000000 b")
    assert found is not None
    next(found)
    found.close()
    until(lambda: running(admin, "SELECT a.seq") == [], "the query ended on the server")


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_commit_means_the_same_whatever_completion_type_is(mariadb: MariaDb, kind: int) -> None:
    address = f"mysql://u:p@tcp({mariadb.address})/t?completion_type={kind}"
    table = f"done_{uuid.uuid4().hex[:12]}"
    with (
        trunkline.connect(address, linger=0) as conn,
        trunkline.connect(address, linger=0) as other,
    ):
        conn.exec(f"CREATE TABLE {table} (n INTEGER)")
        try:
            with conn.transaction():
                conn.exec(f"INSERT INTO {table} VALUES (1)")
            conn.executemany(f"INSERT INTO {table} VALUES (?)", [[n] for n in range(2, 12)])
            with pytest.raises(ZeroDivisionError), conn.transaction():  # noqa: PT012 (the block is what is tested)
                conn.exec(f"INSERT INTO {table} VALUES (100)")
                raise ZeroDivisionError
            conn.exec(f"INSERT INTO {table} VALUES (12)", timeout=5_000)
            assert rows(other, f"SELECT count(*), max(n) FROM {table}") == [[12, 12]]
        finally:
            conn.exec(f"DROP TABLE {table}")


def test_many_queries_closed_early_leave_no_sessions(start_server: Callable[..., MariaDb]) -> None:
    server = start_server(MariaDb)
    with trunkline.connect(f"mysql://u:p@tcp({server.address})/t", linger=0.2) as conn:
        for _ in range(20):
            with conn.query("SELECT seq FROM seq_1_to_1000000") or [] as found:
                assert next(found) == [1]
        sessions = "SELECT count(*) FROM information_schema.processlist WHERE user = 'u'"
        until(lambda: rows(conn, sessions)[0][0] <= 2, "the end of their sessions")

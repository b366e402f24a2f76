"""What a clickhouse connection makes of wrong statements, wrong values and wrong servers: one clear line, the
right error and code, and a connection that everybody can use afterwards."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import trunkline
from tests.servers.clickhouse import ClickHouse
from tests.servers.mariadb import MariaDb
from tests.servers.mosquitto import Mosquitto
from tests.servers.postgres import Postgres
from tests.support.sockets import Peer, SocketServer
from tests.support.statements import rows
from trunkline.errors import DialError, StatementError
from trunkline.proxy.connection import Connection


@pytest.fixture
def db(clickhouse: ClickHouse) -> Iterator[Connection]:
    with trunkline.connect(
        f"clickhouse://u:p@{clickhouse.address}/default", linger=0.2
    ) as connection:
        yield connection


@pytest.fixture
def table(db: Connection) -> str:
    name = f"x{uuid.uuid4().hex[:12]}"
    db.exec(f"CREATE TABLE {name} (a UInt8, b Nullable(String), d Date) ENGINE = Memory")
    return name


def refused(db: Connection, sql: str, *binds: Any) -> StatementError:
    with pytest.raises(StatementError) as caught:
        db.exec(sql, *binds)
    assert type(caught.value) is StatementError
    assert "\n" not in str(caught.value)
    assert "Stack trace" not in str(caught.value)
    assert "DB::" not in str(caught.value)
    assert rows(db, "SELECT 1") == [[1]]
    other = trunkline.Dial(db.fd())
    assert other is not None
    with other:
        assert rows(other, "SELECT 2") == [[2]]
    return caught.value


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELCT 1", 62),
        ("SELECT * FROM there_is_none", 60),
        ("SELECT nothing", 47),
        ("SELECT no_such_function(1)", 46),
        ("SELECT 1 + 'x'", 43),
        ("INSERT INTO there_is_none VALUES (1)", 60),
        ("INSERT INTO there_is_none SELECT 1", 60),
        ("USE there_is_none", 81),
        ("SELECT throwIf(number = 70000) FROM system.numbers LIMIT 100000", 395),
    ],
)
def test_what_the_server_refuses_has_its_code(db: Connection, sql: str, code: int) -> None:
    assert refused(db, sql).code == code


@pytest.mark.parametrize(
    ("sql", "binds", "reason"),
    [
        ("SELECT 1; SELECT 2", (), "one statement at a time"),
        ("", (), "no statement"),
        ("INSERT INTO {t} FORMAT CSV 1,a,2020-01-01", (), "INSERT INTO table VALUES"),
        ("INSERT INTO {t} VALUES", (), "one list of rows"),
        ("INSERT INTO {t} VALUES", (5,), "one list of rows"),
        ("INSERT INTO {t} VALUES", ([5],), "each row"),
        ("INSERT INTO {t} VALUES (?, ?, ?)", (1,), "3 placeholders"),
        ("SELECT ?", (1, 2), "1 placeholder"),
        ("SELECT ?", ({1: object},), "cannot be sent|no value of type"),
    ],
)
def test_what_is_refused_before_it_is_sent_says_what_to_do(
    db: Connection, table: str, sql: str, binds: tuple[Any, ...], reason: str
) -> None:
    try:
        error: Exception = refused(db, sql.format(t=table), *binds)
    except TypeError as wrong:
        error = wrong
    assert pytest.raises(type(error), match=reason)
    assert rows(db, f"SELECT count() FROM {table}") == [[0]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((300, None, "2020-01-01"), "row 3, column a .UInt8.: 300 is not between 0 and 255"),
        ((-1, None, "2020-01-01"), "row 3, column a"),
        ((None, None, "2020-01-01"), "not Nullable"),
        (("x", None, "2020-01-01"), "whole number"),
        ((1, 5, "2020-01-01"), "text or bytes"),
        ((1, "\ud800", "2020-01-01"), "surrogate"),
        ((1, "a", "1969-12-31"), "row 3, column d .Date.: 1969-12-31 is not between"),
        ((1, "a"), "row 3 has 2 values"),
    ],
)
def test_a_value_that_the_column_cannot_hold_is_named_and_no_row_is_written(
    db: Connection, table: str, row: tuple[Any, ...], reason: str
) -> None:
    found = [(1, "a", "2020-01-01"), (2, None, "2020-01-01"), row]
    with pytest.raises(StatementError, match=reason):
        db.executemany(f"INSERT INTO {table} VALUES", found)
    with pytest.raises(StatementError, match=reason):
        db.exec(f"INSERT INTO {table} VALUES", found)
    assert rows(db, f"SELECT count() FROM {table}") == [[0]]
    assert db.stats().reconnects == 0


def test_a_wrong_value_deep_in_a_bulk_leaves_nothing_behind(db: Connection, table: str) -> None:
    found: list[list[Any]] = [[n % 256, "x", "2020-01-01"] for n in range(50_000)]
    found[-1][0] = 256
    with pytest.raises(StatementError, match="row 50000, column a"):
        db.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", found)
    assert rows(db, f"SELECT count() FROM {table}") == [[0]]


def test_a_table_that_is_gone(db: Connection, table: str) -> None:
    db.exec(f"DROP TABLE {table}")
    assert refused(db, f"SELECT * FROM {table}").code == 60
    assert refused(db, f"INSERT INTO {table} VALUES", [(1, "a", "2020-01-01")]).code == 60


def test_a_statement_that_is_too_long_for_the_server_is_refused_in_its_words(
    db: Connection,
) -> None:
    text = "x" * 30_000_000
    with pytest.raises(StatementError, match="Too large string size"):
        db.exec("SELECT length(?)", text)
    with pytest.raises(StatementError, match="Too large string size"):
        list(db.query("SELECT length(?)", text) or [])
    assert rows(db, "SELECT 1") == [[1]]


def test_an_object_of_Dial_gives_None_and_one_line(
    clickhouse: ClickHouse, caplog: pytest.LogCaptureFixture
) -> None:
    db = trunkline.Dial(f"clickhouse://u:p@{clickhouse.address}/default")
    assert db is not None
    with db, caplog.at_level(logging.WARNING, "trunkline"):
        assert db.exec("SELECT * FROM there_is_none") is None
        assert db.executemany("INSERT INTO there_is_none VALUES", [(1,)]) is None
        assert [record.getMessage().count("\n") for record in caplog.records] == [0, 0]
        assert "there_is_none" in trunkline.last_error()


@pytest.mark.parametrize(
    ("account", "code"), [("u:s3cr3t@", 193), ("nobody:s3cr3t@", 192), ("s3cr3t:@", 192)]
)
def test_a_refused_login(clickhouse: ClickHouse, account: str, code: int) -> None:
    with pytest.raises(DialError, match="refused the login") as caught:
        trunkline.connect(f"clickhouse://{account}{clickhouse.address}/default")
    assert caught.value.code == code
    assert "u:s3cr3t" not in str(caught.value)


def test_a_database_that_is_not_there(clickhouse: ClickHouse) -> None:
    with pytest.raises(DialError, match="no database 'there_is_none'") as caught:
        trunkline.connect(f"clickhouse://u:p@{clickhouse.address}/there_is_none")
    assert caught.value.code == 81


def test_a_server_of_another_kind_is_told_apart(
    clickhouse: ClickHouse, mariadb: MariaDb, postgres: Postgres, mosquitto: Mosquitto
) -> None:
    for port in (clickhouse.ports["http"], mariadb.port, postgres.port, mosquitto.port):
        with pytest.raises(DialError, match="native port") as caught:
            trunkline.connect(f"clickhouse://u:p@127.0.0.1:{port}/default", timeout=4)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("banner", [b"SSH-2.0-x\r\n", b"\0" * 64, b"\xff" * 64, b"\2\0\0\0"])
def test_a_server_that_talks_nonsense(banner: bytes) -> None:
    def greet(peer: Peer) -> None:
        peer.send(banner)
        while peer.read():
            pass

    with SocketServer(greet) as server:
        with pytest.raises(DialError) as caught:
            trunkline.connect(f"clickhouse://u:p@127.0.0.1:{server.port}/default", timeout=4)
        assert "u:p" not in str(caught.value)


def test_a_right_that_is_taken_away(start_server: Callable[..., ClickHouse]) -> None:
    server = start_server(ClickHouse)
    users = (server.folder / "users.xml").read_text()
    with (
        trunkline.connect(f"clickhouse://u:p@{server.address}/default", linger=0.2) as db,
        trunkline.connect(f"clickhouse://{server.address}/default", linger=0.2) as admin,
    ):
        db.exec("CREATE TABLE mine (n UInt8) ENGINE = Memory")
        only = "<quota>default</quota><allow_databases><database>other</database></allow_databases>"
        server.write("users.xml", users.replace("<quota>default</quota>", only, 1))
        admin.exec("SYSTEM RELOAD CONFIG")
        with pytest.raises(StatementError) as caught:
            db.exec("SELECT * FROM default.mine")
        assert caught.value.code == 291
        assert rows(db, "SELECT 1") == [[1]]
        assert rows(admin, "SELECT count() FROM mine") == [[0]]

"""What people get wrong with a mysql address or statement: one clear line, and everybody can go on."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import pytest

import trunkline
from tests.servers.base import HOST
from tests.servers.clickhouse import ClickHouse
from tests.servers.mariadb import MariaDb
from tests.servers.postgres import Postgres
from tests.support.statements import rows
from trunkline.errors import DialError, StatementError, TrunklineError
from trunkline.proxy.connection import Connection

SECRET = "S3cret!"


@pytest.fixture
def db(mariadb: MariaDb) -> Iterator[Connection]:
    with trunkline.connect(f"mysql://u:p@tcp({mariadb.address})/t", linger=0.2) as connection:
        yield connection


@pytest.fixture
def other(db: Connection) -> Iterator[Connection]:
    """Another holder of the same connection."""
    with trunkline.connect(db.fd()) as connection:
        yield connection


@pytest.fixture
def table(db: Connection) -> str:
    name = MariaDb.unique("b").replace("-", "")
    db.exec(
        f"CREATE TEMPORARY TABLE {name} (id TINYINT PRIMARY KEY, name VARCHAR(3) NOT NULL, day DATE)"
    )
    return name


def usable(*connections: Connection) -> None:
    for connection in connections:
        assert rows(connection, "SELECT 1") == [[1]]


def one_line(error: TrunklineError) -> str:
    text = str(error)
    assert text
    assert "\n" not in text
    assert SECRET not in text
    return text


@pytest.mark.parametrize(
    ("sql", "binds", "code", "text"),
    [
        ("SELCT 1", (), 1064, "syntax"),
        ("SELECT *\nFROM\nnowhere", (), 1146, "nowhere"),
        ("SELECT nothing FROM {table}", (), 1054, "nothing"),
        ("INSERT INTO {table} VALUES (1000, 'a', NULL)", (), 1264, "id"),
        ("INSERT INTO {table} VALUES (?, ?, NULL)", (1, "four"), 1406, "name"),
        ("INSERT INTO {table} VALUES (?, ?, NULL)", (1, None), 1048, "name"),
        ("INSERT INTO {table} VALUES (?, ?, ?)", (1, "a", "yesterday"), 1292, "yesterday"),
        (
            "INSERT INTO {table} VALUES (?, ?, NULL), (?, ?, NULL)",
            (1, "a", 1, "b"),
            1062,
            "Duplicate",
        ),
        ("SELECT ?", (), None, "placeholder"),
        ("SELECT 1", (1,), None, "placeholder"),
        ("SELECT ?, ?", ({"a": 1},), None, "in order"),
        ("SELECT 1; DROP TABLE {table}", (), None, "multiStatements"),
        ("", (), None, "no statement"),
        (" ; ", (), None, "no statement"),
        ("SET autocommit = 0", (), None, "conn.transaction"),
        ("SELECT ?", (float("nan"),), None, "nan"),
        ("SELECT ?", ("\udc80",), None, "surrogate"),
        ("SELECT '\udc80'", (), None, "DC80"),
        ("KILL 999999999", (), 1094, "thread"),
        ("LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE {table}", (), None, "allowAllFiles"),
        ("USE nowhere", (), None, "nowhere"),
    ],
)
def test_a_wrong_statement_is_refused_and_everybody_goes_on(
    db: Connection, other: Connection, table: str, sql: str, binds: Any, code: int | None, text: str
) -> None:
    with pytest.raises(StatementError, match=text) as caught:
        db.exec(sql.format(table=table), *binds)
    one_line(caught.value)
    if code is not None:
        assert caught.value.code == code
    assert rows(other, f"SELECT COUNT(*) FROM {table}") == [[0]]
    usable(db, other)


def test_a_table_that_is_gone_is_told_on_every_way(
    db: Connection, other: Connection, table: str
) -> None:
    db.exec(f"DROP TABLE {table}")
    ways: list[Callable[[], object]] = [
        lambda: db.exec(f"SELECT * FROM {table}"),
        lambda: db.query(f"SELECT * FROM {table}"),
        lambda: db.executemany(f"INSERT INTO {table} VALUES (?)", [[1], [2]]),
    ]
    for way in ways:
        with pytest.raises(StatementError, match=table) as caught:
            way()
        assert caught.value.code == 1146
        one_line(caught.value)
    usable(db, other)


def test_an_error_in_a_block_leaves_the_block_going(db: Connection, table: str) -> None:
    with db.transaction():
        db.exec(f"INSERT INTO {table} VALUES (1, 'a', ?)", date(2024, 1, 2))
        with pytest.raises(StatementError):
            db.exec(f"INSERT INTO {table} VALUES (1, 'b', NULL)")
        db.exec(f"INSERT INTO {table} VALUES (2, 'c', NULL)")
    assert rows(db, f"SELECT id FROM {table} ORDER BY id") == [[1], [2]]


def test_a_statement_that_ends_a_block_is_told_in_the_next(db: Connection) -> None:
    name = MariaDb.unique("b").replace("-", "")
    with pytest.raises(StatementError) as caught, db.transaction():  # noqa: PT012 (the block is what is tested)
        db.exec(f"CREATE TABLE {name} (id INT)")
        db.exec(f"INSERT INTO {name} VALUES (1)")
    assert caught.value.code == "TRANSACTION_OVER"
    assert rows(db, f"SELECT COUNT(*) FROM {name}") == [[0]]
    db.exec(f"DROP TABLE {name}")


def test_a_right_that_is_revoked_is_told(start_server: Callable[..., MariaDb]) -> None:
    server = start_server(MariaDb)
    with trunkline.connect(f"mysql://root@unix({server.unix_socket})/t", linger=0.2) as root:
        root.exec("CREATE TABLE r (id INT)")
        with trunkline.connect(f"mysql://limited:p@tcp({server.address})/t", linger=0.2) as db:
            usable(db)
            assert rows(db, "SELECT * FROM r") == []
            with pytest.raises(StatementError, match="denied") as caught:
                db.exec("INSERT INTO r VALUES (1)")
            assert caught.value.code == 1142
            root.exec("REVOKE SELECT ON t.* FROM limited@'127.0.0.1'")
            with pytest.raises(StatementError, match="denied") as caught:
                db.exec("USE t")  # which is when MariaDB looks at the rights to a database again
            assert caught.value.code == 1044
            one_line(caught.value)
            usable(db)


@pytest.mark.parametrize(
    ("login", "code", "text"),
    [
        (f"u:{SECRET}@tcp({{address}})/t", 1045, "denied"),
        (f"nobody:{SECRET}@tcp({{address}})/t", 1045, "denied"),
        ("u:p@tcp({address})/nowhere", 1049, "nowhere"),
        ("limited:p@tcp({address})/mysql", 1044, "denied"),
        (f"tls:{SECRET}@tcp({{address}})/t", 1045, "denied"),
        ("u:p@unix({folder}/nothing)/t", None, "nothing"),
        ("u:p@tcp(no-such-host.invalid:1)/t", None, "no-such-host.invalid"),
    ],
)
def test_a_login_that_is_refused_says_why(
    mariadb: MariaDb, login: str, code: int | None, text: str
) -> None:
    address = login.format(address=mariadb.address, folder=mariadb.folder)
    with pytest.raises(DialError, match=text) as caught:
        trunkline.connect(f"mysql://{address}")
    one_line(caught.value)
    if code is not None:
        assert caught.value.code == code
    assert trunkline.Dial(f"mysql://{address}") is None
    assert text in trunkline.last_error()


# servers of another kind


@contextmanager
def answering(banner: bytes, *, then_closes: bool = True) -> Iterator[int]:
    """A port where everybody is told this."""
    with socket.create_server((HOST, 0)) as listener:
        kept: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    sock = listener.accept()[0]
                except OSError:
                    return
                kept.append(sock)
                with contextlib.suppress(OSError):  # it has gone again
                    sock.sendall(banner)
                    if then_closes:
                        sock.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(20)
        for sock in kept:
            sock.close()


@pytest.mark.parametrize(
    "banner",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.0 400 Bad Request\r\n\r\n",
        b"-ERR unknown command\r\n",
        b"\x05\0\0\0\x09abc\0",
        b"\0\0\0\0",
        b"\x01\0\0\0\x0a",
        b"\x30\0\0\0\x0a" + b"x" * 48,
        b"\xff" * 100,
        b"",
    ],
)
def test_what_is_no_mysql_server_is_said_to_be_none(banner: bytes) -> None:
    with answering(banner) as port, pytest.raises(DialError) as caught:
        trunkline.connect(f"mysql://u:{SECRET}@tcp({HOST}:{port})/t", 5)
    assert str(port) in one_line(caught.value)


def test_a_server_that_says_nothing_is_given_up(postgres: Postgres, clickhouse: ClickHouse) -> None:
    with answering(b"220 mail\r\n", then_closes=False) as port:
        for place in (f"{HOST}:{port}", postgres.address, clickhouse.address):
            with pytest.raises(DialError) as caught:
                trunkline.connect(f"mysql://u:{SECRET}@tcp({place})/t?timeout=500ms")
            assert "MySQL" in one_line(caught.value)


def test_a_server_that_is_full_is_told_and_may_be_tried_again(
    start_server: Callable[..., MariaDb],
) -> None:
    server = start_server(MariaDb)
    with trunkline.connect(f"mysql://root@unix({server.unix_socket})/t", linger=0.2) as root:
        root.exec("ALTER USER u@'127.0.0.1' WITH MAX_USER_CONNECTIONS 1")
        address = f"mysql://u:p@tcp({server.address})/t"
        with trunkline.connect(address, linger=0.2) as db:
            with pytest.raises(DialError) as caught:
                trunkline.connect(address)
            assert caught.value.code in (1203, 1226)
            one_line(caught.value)
            # its second link, by which a statement is stopped, cannot be had either
            with pytest.raises(TrunklineError):
                db.exec("DO SLEEP(600)", timeout=200)
            root.exec("ALTER USER u@'127.0.0.1' WITH MAX_USER_CONNECTIONS 0")
            usable(db)

"""postgres, what goes wrong: one clear line, the server's code, and everybody goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import trunkline
from tests.servers.clickhouse import ClickHouse
from tests.servers.mariadb import MariaDb
from tests.servers.postgres import Postgres
from tests.support.postgres_side import ask, own_schema
from tests.support.sockets import SocketServer, echo
from tests.support.statements import rows
from trunkline.errors import DialError, StatementError
from trunkline.proxy.connection import Connection


@pytest.fixture
def schema(postgres: Postgres) -> Iterator[str]:
    with own_schema(postgres) as name:
        yield name


@pytest.fixture
def conn(postgres: Postgres, schema: str) -> Iterator[Connection]:
    address = f"postgres://u:p@{postgres.address}/postgres?search_path={schema}"
    with trunkline.connect(address, linger=0.2) as connection:
        connection.exec("CREATE TABLE t (id SMALLINT PRIMARY KEY, name VARCHAR(3) NOT NULL)")
        yield connection


@pytest.mark.parametrize(
    ("sql", "binds", "code", "part"),
    [
        ("SELCT 1", (), "42601", "syntax error"),
        ("SELECT * FROM nowhere", (), "42P01", 'relation "nowhere" does not exist'),
        ("SELECT nothing FROM t", (), "42703", 'column "nothing" does not exist'),
        ("SELECT nosuch(1)", (), "42883", "function nosuch"),
        ("SELECT 1 / 0", (), "22012", "division by zero"),
        ("INSERT INTO t VALUES (?, ?)", (1, None), "23502", "null value"),
        ("INSERT INTO t VALUES (?, ?)", (1, "four"), "22001", "too long"),
        ("INSERT INTO t VALUES (?, ?)", (70_000, "x"), "22003", "out of range"),
        ("INSERT INTO t VALUES (?, ?)", ("x", "x"), "22P02", "invalid input syntax"),
        ("INSERT INTO t VALUES (?, ?)", (1,), None, "2 placeholders and 1 value"),
        ("INSERT INTO t VALUES (?, ?)", (1, 2, 3), None, "2 placeholders and 3 values"),
        ("LISTEN fills", (), None, "LISTEN was refused"),
        ("SELECT 1; listen fills", (), None, "LISTEN was refused"),
        ("SELECT $2", (1,), None, "2 placeholders and 1 value"),
        ("SELECT $0", (1,), None, ""),
        ("SELECT 1; SELCT 1", (), "42601", "syntax error"),
        ("SELECT 1; SELECT ?", (1,), None, "one by one"),
        ("INSERT INTO t VALUES (?, ?)", (1, "a\0"), None, "NUL"),
        ("INSERT INTO t VALUES (?, ?)", (1, "\ud800"), None, "surrogate"),
        ("COPY t FROM STDIN", (), None, "executemany"),
        ("VACUUM; SELECT 1", (), "25001", "cannot run inside a transaction block"),
        ("SELECT 'open", (), "42601", "unterminated"),
        ("SET client_encoding = 'nonsense'", (), "22023", "client_encoding"),
    ],
)
def test_a_refused_statement_is_told_in_one_line(
    conn: Connection,
    postgres: Postgres,
    schema: str,
    sql: str,
    binds: tuple[Any, ...],
    code: str,
    part: str,
) -> None:
    address = f"postgres://u:p@{postgres.address}/postgres?search_path={schema}"
    with trunkline.connect(address, linger=0.2) as other, trunkline.connect(conn.fd()) as second:
        with pytest.raises(StatementError) as caught:
            conn.exec(sql, *binds)
        assert caught.value.code == code
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)
        for each in (conn, second, other):
            assert rows(each, "SELECT count(*) FROM t") == [[0]]


def test_a_table_that_is_gone_meanwhile(conn: Connection, postgres: Postgres, schema: str) -> None:
    assert rows(conn, "SELECT count(*) FROM t") == [[0]]
    ask(postgres, f"DROP TABLE {schema}.t")
    with pytest.raises(StatementError) as caught:
        conn.exec("SELECT count(*) FROM t")
    assert caught.value.code == "42P01"


def test_a_right_that_is_revoked(conn: Connection, postgres: Postgres, schema: str) -> None:
    name = f"user_{schema}"
    ask(postgres, f"CREATE USER {name} PASSWORD 'pw'; GRANT ALL ON SCHEMA {schema} TO {name}")
    ask(postgres, f"GRANT ALL ON {schema}.t TO {name}")
    try:
        address = f"postgres://{name}:pw@{postgres.address}/postgres?search_path={schema}"
        with trunkline.connect(address, linger=0.2) as theirs:
            theirs.exec("INSERT INTO t VALUES (1, 'a')")
            ask(postgres, f"REVOKE INSERT ON {schema}.t FROM {name}")
            with pytest.raises(StatementError, match="permission denied") as caught:
                theirs.exec("INSERT INTO t VALUES (2, 'b')")
            assert caught.value.code == "42501"
            assert rows(theirs, "SELECT id FROM t") == [[1]]
    finally:
        ask(postgres, f"DROP OWNED BY {name}; DROP USER {name}")


def test_an_error_in_a_block_ends_the_block_and_nobody_else(conn: Connection) -> None:
    with pytest.raises(StatementError, match="nothing was committed"), conn.transaction():  # noqa: PT012
        conn.exec("INSERT INTO t VALUES (1, 'a')")
        with pytest.raises(StatementError):
            conn.exec("SELECT 1 / 0")
        with pytest.raises(StatementError) as caught:
            conn.exec("SELECT 1")
        assert caught.value.code == "25P02"
    assert rows(conn, "SELECT count(*) FROM t") == [[0]]


def test_savepoints_save_a_block(conn: Connection) -> None:
    with conn.transaction():
        conn.exec("INSERT INTO t VALUES (1, 'a')")
        conn.exec("SAVEPOINT s")
        with pytest.raises(StatementError):
            conn.exec("INSERT INTO t VALUES (1, 'b')")
        conn.exec("ROLLBACK TO SAVEPOINT s")
    assert rows(conn, "SELECT * FROM t") == [[1, "a"]]


@pytest.mark.parametrize(
    ("login", "database", "code"),
    [
        ("u:Wrong1", "postgres", "28P01"),
        ("nobody:Wrong1", "postgres", "28P01"),
        ("u:p", "nowhere", "3D000"),
    ],
)
def test_a_login_that_is_refused(postgres: Postgres, login: str, database: str, code: str) -> None:
    with pytest.raises(DialError) as caught:
        trunkline.connect(f"postgres://{login}@{postgres.address}/{database}")
    assert caught.value.code == code
    assert "Wrong1" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_full_is_told(start_server: Callable[..., Postgres]) -> None:
    server = start_server(Postgres)
    ask(server, "ALTER SYSTEM SET max_connections = 5")
    ask(server, "ALTER SYSTEM SET superuser_reserved_connections = 3")
    ask(server, "CREATE USER other PASSWORD 'pw'")
    server.restart()
    address = f"postgres://other:pw@{server.address}/postgres"
    with trunkline.connect(address) as one, trunkline.connect(address) as two:
        with pytest.raises(DialError, match="slots") as caught:
            trunkline.connect(address)
        assert caught.value.code == "53300"
        assert rows(one, "SELECT 1") == rows(two, "SELECT 1") == [[1]]


@pytest.mark.parametrize("mode", ["prefer", "disable"])
def test_an_echo_is_no_postgresql(mode: str) -> None:
    with SocketServer(echo) as server, pytest.raises(DialError, match="not a PostgreSQL server"):
        trunkline.connect(f"postgres://u:p@127.0.0.1:{server.port}/d?sslmode={mode}|timeout=5")


def test_mysql_is_no_postgresql(mariadb: MariaDb) -> None:
    with pytest.raises(DialError, match="not a PostgreSQL server"):
        trunkline.connect(f"postgres://u:p@{mariadb.address}/d")


def test_clickhouse_is_no_postgresql(clickhouse: ClickHouse) -> None:
    with pytest.raises(DialError) as caught:
        trunkline.connect(f"postgres://u:p@{clickhouse.address}/d|timeout=5")
    assert "\n" not in str(caught.value)


def test_a_warning_of_the_server_is_one_line_in_the_log(
    conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", "trunkline"):
        for _ in range(3):
            conn.exec("DO $$ BEGIN RAISE WARNING 'mind the gap'; RAISE NOTICE 'not this'; END $$")
        assert rows(conn, "SELECT 1") == [[1]]
        told = [record.getMessage() for record in caplog.records]
    assert len([text for text in told if "mind the gap" in text]) <= 1
    assert not any("not this" in text for text in told)

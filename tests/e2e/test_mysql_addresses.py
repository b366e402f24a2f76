"""What a mysql address says is in force, asked from the server itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import trunkline
from tests.servers.mariadb import MariaDb
from tests.support.mysql_side import GreetingServer
from tests.support.statements import rows
from trunkline.errors import DialError, OutcomeUnknown, StatementError
from trunkline.proxy.connection import Connection


@contextmanager
def dialled(address: str, **options: Any) -> Iterator[Connection]:
    with trunkline.connect(address, linger=0.2, **options) as connection:
        yield connection


def session(connection: Connection, name: str) -> Any:
    return rows(connection, f"SELECT @@SESSION.{name}")[0][0]


def status(connection: Connection, name: str) -> str:
    return str(rows(connection, f"SHOW SESSION STATUS LIKE '{name}'")[0][1])


@pytest.mark.parametrize(
    ("params", "sql", "value"),
    [
        ("", "@@character_set_client", "utf8mb4"),
        ("", "@@collation_connection", "utf8mb4_general_ci"),
        ("", "@@autocommit", 1),
        ("charset=utf8mb4", "@@character_set_results", "utf8mb4"),
        ("charset=utf8", "@@character_set_client", "utf8mb3"),
        ("charset=latin1", "@@character_set_connection", "latin1"),
        ("charset=nosuch,latin1,utf8mb4", "@@character_set_client", "latin1"),
        ("collation=utf8mb4_unicode_ci", "@@collation_connection", "utf8mb4_unicode_ci"),
        ("charset=utf8mb4&collation=utf8mb4_bin", "@@collation_connection", "utf8mb4_bin"),
        ("collation=latin1_german1_ci", "@@collation_connection", "latin1_german1_ci"),
        ("sql_mode=%27ANSI_QUOTES%27", "@@sql_mode", "ANSI_QUOTES"),
        ("wait_timeout=61&net_read_timeout=62", "@@wait_timeout + @@net_read_timeout", 123),
        ("time_zone=%27%2B03%3A00%27", "@@time_zone", "+03:00"),
        ("tx_isolation=%27SERIALIZABLE%27", "@@tx_isolation", "SERIALIZABLE"),
        ("max_statement_time=7.5", "@@max_statement_time", 7.5),
        ("parseTime=true", "DATE'2024-01-02'", datetime(2024, 1, 2).date()),
        ("parseTime=false", "DATE'2024-01-02'", datetime(2024, 1, 2).date()),
        ("interpolateParams=true&checkConnLiveness=false&allowOldPasswords=true", "1", 1),
        ("columnsWithAlias=true", "1", 1),
    ],
)
def test_the_session_is_as_the_address_says(
    mariadb: MariaDb, params: str, sql: str, value: object
) -> None:
    with dialled(f"mysql://u:p@tcp({mariadb.address})/t?{params}") as db:
        assert rows(db, f"SELECT {sql}") == [[value]]


@pytest.mark.parametrize(
    "place",
    ["tcp({address})", "tcp4({address})", "({address})", "tcp(localhost:{port})"],
)
def test_the_server_is_reached_by_every_form(mariadb: MariaDb, place: str) -> None:
    with dialled(f"mysql://u:p@{place.format(address=mariadb.address, port=mariadb.port)}/t") as db:
        assert rows(db, "SELECT DATABASE(), CURRENT_USER()") == [["t", "u@127.0.0.1"]]


def test_a_plain_url_decodes_its_password(mariadb: MariaDb) -> None:
    name = MariaDb.unique("d").replace("-", "")
    with dialled(f"mysql://u:p@{mariadb.address}/t") as db:
        db.exec(f"CREATE USER {name}@'127.0.0.1' IDENTIFIED BY 'a@b/c:d|e%'")
        for address in (
            f"mysql://{name}:a%40b%2Fc%3Ad%7Ce%25@{mariadb.address}/information%5Fschema",
            f"mysql://{name}:a@b/c:d|e%@tcp({mariadb.address})/information_schema||timeout=5",
        ):
            with dialled(address) as other:
                assert rows(other, "SELECT DATABASE()") == [["information_schema"]]
        db.exec(f"DROP USER {name}@'127.0.0.1'")


def test_a_unix_socket_is_reached_without_tls(mariadb: MariaDb) -> None:
    name = MariaDb.unique("s").replace("-", "")
    with dialled(f"mysql://u:p@tcp({mariadb.address})/t") as db:
        db.exec(f"CREATE USER {name}@localhost IDENTIFIED BY 'p'")
        with dialled(f"mysql://{name}:p@unix({mariadb.unix_socket})/?timeout=5s") as local:
            assert rows(local, "SELECT CURRENT_USER(), DATABASE()") == [[f"{name}@localhost", None]]
            assert status(local, "Ssl_cipher") == ""
            with pytest.raises(trunkline.OperationTimeout):
                local.exec("SELECT SLEEP(600)", timeout=200)
        db.exec(f"DROP USER {name}@localhost")


def test_without_a_user_nobody_logs_in(mariadb: MariaDb) -> None:
    with pytest.raises(DialError) as caught:
        trunkline.connect(f"mysql://tcp({mariadb.address})/t")
    assert caught.value.code in (1045, 1698)
    assert "''@" in str(caught.value)


@pytest.mark.parametrize(
    ("rest", "encrypted"),
    [
        ("", False),
        ("?tls=false", False),
        ("?tls=preferred", True),
        ("?tls=skip-verify", True),
        ("?tls=true|cafile={ca}", True),
        ("|cafile={ca}", True),
        ("|insecureSkipVerify=true", True),
        ("?tls=true&compress=true|cafile={ca}", True),
    ],
)
def test_the_link_is_encrypted_as_the_address_says(
    mariadb: MariaDb, rest: str, encrypted: bool
) -> None:
    with dialled(f"mysql://u:p@tcp({mariadb.address})/t{rest.format(ca=mariadb.certs.ca)}") as db:
        assert bool(status(db, "Ssl_cipher")) is encrypted


def test_our_own_certificate_is_shown(mariadb: MariaDb) -> None:
    name, pair = MariaDb.unique("x").replace("-", ""), mariadb.certs.client
    with dialled(f"mysql://u:p@tcp({mariadb.address})/t") as db:
        db.exec(f"CREATE USER {name}@'127.0.0.1' IDENTIFIED BY 'p' REQUIRE X509")
        address = f"mysql://{name}:p@tcp({mariadb.address})/|cafile={mariadb.certs.ca}"
        with pytest.raises(DialError):
            trunkline.connect(address)
        with dialled(f"{address}&certfile={pair.cert}&keyfile={pair.key}") as known:
            assert rows(known, "SELECT 1") == [[1]]
        db.exec(f"DROP USER {name}@'127.0.0.1'")


@pytest.mark.parametrize("rest", ["?tls=true", "?tls=true|cafile={stranger}"])
def test_a_server_that_cannot_prove_itself_is_refused(mariadb: MariaDb, rest: str) -> None:
    stranger = mariadb.certs.stranger.cert
    with pytest.raises(DialError, match="certificate"):
        trunkline.connect(f"mysql://u:p@tcp({mariadb.address})/t{rest.format(stranger=stranger)}")


def test_compression_is_on(mariadb: MariaDb) -> None:
    with dialled(f"mysql://u:p@tcp({mariadb.address})/t?compress=true") as db:
        assert status(db, "Compression") == "ON"
        text = "lorem ipsum " * 200_000
        assert rows(db, "SELECT ?", text) == [[text]]
        assert len(rows(db, "SELECT seq, MD5(seq) FROM seq_1_to_50000")) == 50_000


def test_timeouts_are_in_force(mariadb: MariaDb) -> None:
    with dialled(
        f"mysql://u:p@tcp({mariadb.address})/t?readTimeout=1s&writeTimeout=1s&timeout=2s"
    ) as db:
        with pytest.raises(OutcomeUnknown, match="readTimeout"):
            db.exec("SELECT SLEEP(600)")
        assert rows(db, "SELECT 1") == [[1]]


def test_the_time_to_connect_is_the_smaller_of_both(silent_port: int) -> None:
    for address, options in (
        (f"mysql://u:p@tcp(127.0.0.1:{silent_port})/t?timeout=200ms", {}),
        (f"mysql://u:p@tcp(127.0.0.1:{silent_port})/t?timeout=600s", {"timeout": 0.5}),
    ):
        with pytest.raises(DialError):
            trunkline.connect(address, **options)


@pytest.fixture
def silent_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_matched_rows_are_counted_where_the_address_says_so(mariadb: MariaDb) -> None:
    for params, count in (("", 0), ("clientFoundRows=true", 2)):
        with dialled(f"mysql://u:p@tcp({mariadb.address})/t?{params}") as db:
            db.exec("CREATE TEMPORARY TABLE c (a INT)")
            db.exec("INSERT INTO c VALUES (1), (1)")
            result = db.exec("UPDATE c SET a = 1")
            assert result is not None
            assert result["affected"] == count


def test_several_statements_where_the_address_says_so(mariadb: MariaDb) -> None:
    with dialled(f"mysql://u:p@tcp({mariadb.address})/t?multiStatements=true") as db:
        assert db.exec("SET @a = ?; SELECT @a + 1 AS b", 4) == {
            "columns": ["b"],
            "values": [[5]],
            "affected": 0,
        }


def test_attributes_are_told() -> None:
    # MariaDB shows them only with its performance_schema, which the tests' server is without
    with GreetingServer(b"\0\0\0\2\0\0\0", plugin=b"mysql_native_password") as server:
        address = (
            f"mysql://u:p@tcp(127.0.0.1:{server.port})/?connectionAttributes=desk%3Afx%2Cteam%3A7"
        )
        with pytest.raises(DialError):
            trunkline.connect(address)
    assert b"\x04desk\x02fx\x04team\x017" in server.wire


def test_datetimes_are_cut(mariadb: MariaDb) -> None:
    moment = datetime(2024, 1, 2, 3, 4, 5, 678_999, tzinfo=UTC)
    for unit, expected in (("1ms", "678000"), ("1s", "000000"), ("0", "678999")):
        with dialled(f"mysql://u:p@tcp({mariadb.address})/t?timeTruncate={unit}") as db:
            (got,) = rows(db, "SELECT CAST(? AS DATETIME(6))", moment)[0]
            assert f"{got:%f}" == expected


def test_long_statements_are_limited(mariadb: MariaDb) -> None:
    with dialled(f"mysql://u:p@tcp({mariadb.address})/t?maxAllowedPacket=2000") as db:
        with pytest.raises(StatementError, match="max_allowed_packet"):
            db.exec("SELECT ?", "x" * 2000)
        assert rows(db, "SELECT ?", "x" * 1900) == [["x" * 1900]]


def test_files_are_sent_where_the_address_says_so(mariadb: MariaDb, tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_text("1\n2\n")
    for params, allowed in (("", False), ("allowAllFiles=true", True)):
        with dialled(f"mysql://u:p@tcp({mariadb.address})/t?{params}") as db:
            db.exec("CREATE TEMPORARY TABLE f (a INT)")
            sql = f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE f"
            if allowed:
                assert (db.exec(sql) or {})["affected"] == 2
            else:
                with pytest.raises(StatementError, match="allowAllFiles"):
                    db.exec(sql)


@pytest.mark.parametrize(
    ("rest", "text"),
    [
        ("?autocommit=0", "conn.transaction"),
        ("?charset=nosuch", "nosuch"),
        ("?collation=nosuch_ci", "nosuch"),
        ("?nosuch=1", "nosuch"),
        ("?sql_mode=ANSI%3B+DROP+DATABASE+t", "syntax"),
    ],
)
def test_what_cannot_be_had_is_told_at_once(mariadb: MariaDb, rest: str, text: str) -> None:
    with pytest.raises(DialError, match=text) as caught:
        trunkline.connect(f"mysql://u:p@tcp({mariadb.address})/t{rest}")
    assert "\n" not in str(caught.value)

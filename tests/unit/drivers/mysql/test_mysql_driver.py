"""The mysql driver: what an address becomes, logins that must not be, and statements against MariaDB."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from mysql.connector.constants import ClientFlag

from tests.servers.mariadb import MariaDb
from tests.support.certs import Certs
from tests.support.mysql_side import GreetingServer
from tests.support.waiting import until
from trunkline.actors.driver import FIRST_ROWS, FatalError, Result
from trunkline.actors.drivers.mysql.driver import MysqlDriver
from trunkline.actors.drivers.mysql.plan import PARAMETERS, Plan, Tls, plan_of
from trunkline.actors.drivers.mysql.plan import UTF8 as UTF8_CHARSET
from trunkline.actors.drivers.mysql.settings import check_settings
from trunkline.actors.drivers.mysql.template import template_of
from trunkline.actors.drivers.mysql.types import literals, readers, to_rows
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import AddressError, DialError, StatementError

ROOT = Path(__file__).parents[4]
SECRET = "S3cret!"
FULLY, OK = b"\x01\x04", b"\0\0\0\2\0\0\0"

Open = Callable[..., MysqlDriver]


def plan(rest: str) -> Plan:
    return plan_of(parse_address(f"mysql://{rest}"))


@pytest.fixture
def opened() -> Iterator[Callable[[str], MysqlDriver]]:
    """`opened(address)`: a driver with its link, closed at the test's end."""
    drivers: list[MysqlDriver] = []

    def connect(address: str) -> MysqlDriver:
        driver = MysqlDriver(parse_address(address))
        driver.open(Deadline(10))
        drivers.append(driver)
        return driver

    yield connect
    for driver in drivers:
        driver.close()


@pytest.fixture
def make(opened: Callable[[str], MysqlDriver], mariadb: MariaDb) -> Open:
    """`make("timeout=5s")`: a driver on the shared server, with these parameters."""
    return lambda params="", user="u": opened(f"mysql://{user}:p@tcp({mariadb.address})/t?{params}")


@pytest.fixture
def table(make: Open) -> Iterator[str]:
    name = MariaDb.unique("t").replace("-", "")
    driver = make()
    driver.execute(
        f"CREATE TABLE {name} (id INT AUTO_INCREMENT PRIMARY KEY, name TEXT) ENGINE=InnoDB", ()
    )
    yield name
    driver.execute(f"DROP TABLE {name}", ())


def rows(driver: MysqlDriver, sql: str, *binds: Any) -> list[Any]:
    result = driver.execute(sql, binds)
    found = [*result.values]
    while result.rest is not None and (more := result.rest.fetch(1000)):
        found += more
    return found


# the plan


@pytest.mark.parametrize(
    ("rest", "name", "value"),
    [
        ("u:p@tcp(h:3307)/d", "host", "h"),
        ("u:p@tcp(h:3307)/d", "port", 3307),
        ("u:p@tcp(h:3307)/d", "user", "u"),
        ("u:p@tcp(h:3307)/d", "password", "p"),
        ("u:p@tcp(h:3307)/d", "database", "d"),
        ("u: p @tcp(h)/d", "password", " p "),
        ("tcp(h)/", "user", ""),
        ("tcp(h)/", "password", ""),
        ("tcp6([::1]:3306)/", "force_ipv6", True),
        ("tcp4(h:3306)/", "force_ipv6", False),
        ("unix(/run/m.sock)/d", "unix_socket", "/run/m.sock"),
        ("/d?compress=true", "compress", True),
        ("/d?allowAllFiles=1", "allow_local_infile", True),
        ("/d", "allow_local_infile", False),
        ("/d?connectionAttributes=desk%3Afx,a:b", "conn_attrs", {"desk": "fx", "a": "b"}),
        ("/d", "client_flags", [-ClientFlag.MULTI_STATEMENTS]),
        ("/d?multiStatements=true", "client_flags", [ClientFlag.MULTI_STATEMENTS]),
        (
            "/d?clientFoundRows=true",
            "client_flags",
            [-ClientFlag.MULTI_STATEMENTS, ClientFlag.FOUND_ROWS],
        ),
        ("/d", "autocommit", True),
    ],
)
def test_an_address_becomes_arguments_of_the_library(rest: str, name: str, value: object) -> None:
    assert plan(rest).arguments[name] == value


def test_no_database_is_no_argument() -> None:
    assert "database" not in plan("tcp(h)/").arguments


@pytest.mark.parametrize(
    ("params", "name", "value"),
    [
        ("timeout=1500ms", "connect_s", 1.5),
        ("", "connect_s", None),
        ("readTimeout=1.2s", "read_s", 2),
        ("writeTimeout=1ms", "write_s", 1),
        ("readTimeout=0", "read_s", None),
        ("loc=Europe%2FParis", "loc", "Europe/Paris"),
        ("", "loc", None),
        ("timeTruncate=1ms", "truncate_us", 1000),
        ("maxAllowedPacket=1000", "longest", 1000),
        ("maxAllowedPacket=0", "longest", 0),
        ("multiStatements=true", "multi", True),
        ("rejectReadOnly=true", "drops_read_only", True),
        (
            "sql_mode=%27ANSI%27&wait_timeout=60",
            "settings",
            "SET sql_mode = 'ANSI', wait_timeout = 60",
        ),
        ("parseTime=true&interpolateParams=true&columnsWithAlias=true", "settings", ""),
        ("collation=latin1_german1_ci", "collation", "latin1_german1_ci"),
    ],
)
def test_what_the_driver_does_itself_is_in_the_plan(params: str, name: str, value: object) -> None:
    assert getattr(plan(f"/d?{params}"), name) == value


def test_character_sets_have_pythons_codec() -> None:
    found = plan("/d?charset=utf8mb4,latin1,gbk,martian").charsets
    assert [charset.codec for charset in found] == ["utf-8", "cp1252", "gbk", ""]
    assert [charset.hides_backslash for charset in found] == [False, False, True, False]


@pytest.mark.parametrize(
    ("rest", "tls"),
    [
        ("tcp(localhost)/d", Tls.IF_ASKED),
        ("tcp(127.1.2.3:1)/d", Tls.IF_ASKED),
        ("tcp([::1]:3306)/d", Tls.IF_ASKED),
        ("tcp(db.example)/d", Tls.PREFERRED),
        ("tcp(10.0.0.1)/d", Tls.PREFERRED),
        ("tcp(db.example)/d?tls=false", Tls.OFF),
        ("tcp(localhost)/d?tls=preferred", Tls.PREFERRED),
        ("tcp(localhost)/d?tls=skip-verify", Tls.REQUIRED),
        ("tcp(localhost)/d?tls=true", Tls.VERIFIED),
        ("tcp(localhost)/d?tls=true|insecureSkipVerify=true", Tls.REQUIRED),
        ("tcp(localhost)/d|insecureSkipVerify=true", Tls.REQUIRED),
        ("tcp(localhost)/d|cafile=/x", Tls.VERIFIED),
        ("unix(/x)/d", Tls.OFF),
    ],
)
def test_tls_is_what_the_address_says_and_else_goes_by_the_host(rest: str, tls: Tls) -> None:
    assert plan(rest).tls is tls


@pytest.mark.parametrize(
    ("rest", "text"),
    [
        ("u:S3cret!@udp(h:1)/d", "write tcp"),
        ("u:S3cret!@tcp(h:abc)/d", "port"),
        ("u:S3cret!@tcp(h:70000)/d", "port"),
        ("u:S3cret!@tcp(h)/d?tls=false|cafile=x", "leave one of them out"),
        ("u:S3cret!@tcp(h)/d|keyfile=x", "certfile"),
        ("u:S3cret!@unix(/x)/d?tls=true", "unix socket"),
        ("u:S3cret!@tcp(h)/d?connectionAttributes=_pid:1", "connectionAttributes"),
    ],
)
def test_what_cannot_be_had_is_refused_in_words(rest: str, text: str) -> None:
    with pytest.raises(FatalError, match=text) as caught:
        plan(rest)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_valid_case_of_the_go_driver_has_a_plan_or_a_reason() -> None:
    cases = json.loads((ROOT / "tests/data/dsn_cases.json").read_text())
    planned, reasons = 0, list[str]()
    for case in cases:
        if case["scheme"] == "mysql" and case["valid"] and case["dial"]:
            try:
                plan_of(parse_address(case["dial"]))
                planned += 1
            except FatalError as error:
                reasons.append(str(error))
    assert planned > 40
    assert all(
        re.match("mysql://|the mysql address|connectionAttributes", text) for text in reasons
    )


def test_every_parameter_is_on_the_page() -> None:
    page = (ROOT / "docs/mysql.md").read_text()
    assert [name for name in PARAMETERS if f"`{name}" not in page] == []


# logins


def refused(address: str) -> str:
    driver = MysqlDriver(parse_address(address))
    with pytest.raises(DialError) as caught:
        driver.open(Deadline(10))
    assert SECRET not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("tls", ["tls=false", "tls=preferred", ""])
def test_the_password_is_never_on_a_plain_wire(tls: str) -> None:
    with GreetingServer(FULLY, OK) as server:
        text = refused(f"mysql://u:{SECRET}@tcp(127.0.0.1:{server.port})/d?{tls}")
    assert "clear" in text or "offers no TLS" in text
    assert SECRET.encode() not in server.wire
    assert server.logins == (2 if tls == "" else 1)


@pytest.mark.parametrize(
    ("switch", "params"),
    [
        (b"\xfemysql_clear_password\0", "tls=preferred"),
        (b"\xfemysql_clear_password\0", "tls=preferred&allowCleartextPasswords=true"),
        (b"\xfesha256_password\0" + b"x" * 20 + b"\0", "tls=preferred"),
        (b"\xfecaching_sha2_password\0\x04", "tls=false"),
    ],
)
def test_a_server_that_switches_the_method_does_not_get_it_either(
    switch: bytes, params: str
) -> None:
    with GreetingServer(switch, OK) as server:
        assert "clear" in refused(f"mysql://u:{SECRET}@tcp(127.0.0.1:{server.port})/d?{params}")
    assert SECRET.encode() not in server.wire


def test_on_loopback_a_server_that_wants_the_password_gets_it_over_tls(certs: Certs) -> None:
    with GreetingServer(FULLY, OK, context=certs.server_context()) as server:
        refused(f"mysql://u:{SECRET}@tcp(127.0.0.1:{server.port})/d")
    assert SECRET.encode() not in server.wire
    assert SECRET.encode() + b"\0" in server.inside


def test_the_clear_password_method_needs_the_addresss_word_even_over_tls(certs: Certs) -> None:
    switch = b"\xfemysql_clear_password\0"
    address = "mysql://u:{}@tcp(127.0.0.1:{})/d?tls=skip-verify&allowCleartextPasswords={}"
    with GreetingServer(switch, OK, context=certs.server_context()) as server:
        assert "allowCleartextPasswords" in refused(address.format(SECRET, server.port, "false"))
        assert SECRET.encode() not in server.inside
        refused(address.format(SECRET, server.port, "true"))
    assert SECRET.encode() + b"\0" in server.inside
    assert SECRET.encode() not in server.wire


@pytest.mark.parametrize("tls", ["true", "skip-verify"])
def test_nothing_is_sent_to_a_server_without_tls_where_the_address_insists(tls: str) -> None:
    with GreetingServer(OK, plugin=b"mysql_native_password") as server:
        assert "TLS" in refused(
            f"mysql://u:{SECRET}@tcp(127.0.0.1:{server.port})/d?tls={tls}"
        ).replace("SSL", "TLS")
    assert server.wire == b""


def test_plain_is_taken_where_the_address_allows_the_fallback() -> None:
    with GreetingServer(OK, plugin=b"mysql_native_password") as server:
        for tls in ("true", "skip-verify"):
            refused(
                f"mysql://u:p@tcp(127.0.0.1:{server.port})/d?tls={tls}&allowFallbackToPlaintext=true"
            )
    assert b"mysql_native_password" in server.wire


def test_the_native_method_can_be_refused() -> None:
    with GreetingServer(OK, plugin=b"mysql_native_password") as server:
        text = refused(
            f"mysql://u:p@tcp(127.0.0.1:{server.port})/d?tls=false&allowNativePasswords=false"
        )
    assert "allowNativePasswords" in text
    assert server.wire == b""


def test_a_certificate_that_nobody_signed_is_refused(mariadb: MariaDb) -> None:
    text = refused(f"mysql://u:p@tcp({mariadb.address})/t?tls=true")
    assert "certificate" in text
    assert "cafile" in text


# statements


def test_the_private_names_that_the_driver_uses_are_there(make: Open) -> None:
    driver = make()
    assert driver._connection._socket.sock.fileno() == driver._fileno() >= 0


def test_a_result_begins_with_the_first_rows_and_has_the_rest_to_fetch(make: Open) -> None:
    driver = make()
    result = driver.execute("SELECT seq FROM seq_1_to_1000", ())
    assert len(result.values) == FIRST_ROWS
    assert result.rest is not None
    with pytest.raises(StatementError, match="not all read"):
        driver.execute("SELECT 1", ())
    assert len(result.rest.fetch(10_000)) == 1000 - FIRST_ROWS
    assert result.rest.fetch(1) == []
    result.rest.close()
    assert rows(driver, "SELECT 1") == [(1,)]


def test_rows_that_are_given_up_are_not_all_sent(make: Open) -> None:
    driver = make()
    before = int(rows(driver, "SHOW SESSION STATUS LIKE 'Bytes_sent'")[0][1])
    result = driver.execute("SELECT a.seq, REPEAT('x', 500) FROM seq_1_to_10000000 a", ())
    assert result.rest is not None
    result.rest.close()
    result.rest.close()
    sent = int(rows(driver, "SHOW SESSION STATUS LIKE 'Bytes_sent'")[0][1]) - before
    assert sent < 50_000_000
    assert driver.alive()


def test_rows_are_given_up_inside_a_transaction_without_ending_it(make: Open, table: str) -> None:
    driver = make()
    driver.begin()
    driver.execute(f"INSERT INTO {table} (name) VALUES ('a')", ())
    result = driver.execute("SELECT seq FROM seq_1_to_10000000", ())
    assert result.rest is not None
    result.rest.close()
    assert driver.in_transaction()
    driver.commit()
    assert rows(driver, f"SELECT name FROM {table}") == [("a",)]


def test_an_interrupt_stops_the_statement_and_not_the_next(make: Open) -> None:
    driver = make()
    timer = threading.Timer(0.2, driver.interrupt)
    timer.start()
    with pytest.raises(StatementError) as caught:
        driver.execute("SELECT SLEEP(600)", ())
    timer.join()
    assert caught.value.code == 1317
    driver.interrupt()
    assert rows(driver, "SELECT SLEEP(0.05)") == [(0,)]


def test_a_link_that_was_killed_is_known_to_be_dead(make: Open) -> None:
    driver, other = make(), make()
    assert driver.alive()
    number = rows(driver, "SELECT CONNECTION_ID()")[0][0]
    other.execute(f"KILL {number}", ())
    until(lambda: not driver.alive(), "the end of the link seen")


def test_an_aborted_call_ends_with_a_lost_link(make: Open) -> None:
    driver = make()
    timer = threading.Timer(0.2, driver.abort)
    timer.start()
    with pytest.raises(ConnectionError):
        driver.execute("SELECT SLEEP(600)", ())
    timer.join()
    assert not driver.alive()
    assert not driver.in_transaction()


def test_read_timeout_ends_the_link(make: Open) -> None:
    driver = make("readTimeout=500ms")
    with pytest.raises(ConnectionError, match="readTimeout"):
        driver.execute("SELECT SLEEP(600)", ())
    assert not driver.alive()


def test_last_id_is_there_only_where_the_server_made_one(make: Open, table: str) -> None:
    driver = make()
    assert driver.execute(f"INSERT INTO {table} (name) VALUES ('a'), ('b')", ()) == Result(
        [], [], affected=2, last_id=1
    )
    assert driver.execute(f"UPDATE {table} SET name = 'c'", ()) == Result(
        [], [], affected=2, matched=2
    )
    again = driver.execute(f"/* ? */ UPDATE {table} SET name = 'c'", ())
    assert (again.affected, again.matched) == (0, 2)
    many = driver.executemany(f"UPDATE {table} SET name = 'c' WHERE name = ?", [["c"], ["d"]])
    assert (many.affected, many.matched) == (0, 2)
    assert (
        driver.execute(f"INSERT INTO {table} (name) SELECT name FROM {table}", ()).matched is None
    )
    assert make("clientFoundRows=true").execute(f"UPDATE {table} SET name = 'c'", ()).affected == 4


def test_text_cannot_leave_its_string_whatever_escapes(make: Open) -> None:
    driver = make()
    nasty = ["\\", "\\'", "'", "\\\\'; DROP TABLE x; -- ", "%s ?", '\0\x1a\n\r"', "%(trunkline_1)s"]
    for mode in (
        "''",
        "'NO_BACKSLASH_ESCAPES'",
        "'ANSI_QUOTES'",
        "'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'",
    ):
        driver.execute(f"SET sql_mode = {mode}", ())
        for text in nasty:
            assert rows(driver, "SELECT ?, ?, 1", text, text.encode()) == [(text, text.encode(), 1)]


@pytest.mark.parametrize("charset", ["gbk", "sjis", "big5", "latin1", "cp1251", "utf8mb3", "ascii"])
def test_text_cannot_leave_its_string_in_any_character_set(make: Open, charset: str) -> None:
    driver = make(f"charset={charset}")
    assert rows(driver, "SELECT @@character_set_client") == [(charset,)]
    assert rows(driver, "SELECT ?, ?", "a\\'b", b"\xbf\\'\x81") == [("a\\'b", b"\xbf\\'\x81")]
    native = {
        "gbk": "誠",
        "sjis": "表",
        "big5": "功",
        "latin1": "€é",
        "cp1251": "Ж",
        "utf8mb3": "é",
    }
    text = native.get(charset, "x")
    assert rows(driver, "SELECT ?", text) == [(text,)]


def test_several_statements_run_only_where_the_address_allows_them(make: Open, table: str) -> None:
    sql = f"INSERT INTO {table} (name) VALUES (?); SELECT name FROM {table}; SET @a = 1"
    with pytest.raises(StatementError, match="multiStatements"):
        make().execute(sql, ("a",))
    driver = make("multiStatements=true")
    assert rows(driver, f"SELECT COUNT(*) FROM {table}") == [(0,)]
    result = driver.execute(sql, ("a;'b",))
    assert (result.columns, result.values, result.last_id) == (["name"], [("a;'b",)], 1)
    result = driver.execute("SELECT 1; DO 1; SELECT seq AS s FROM seq_1_to_500; SELECT 3", ())
    assert result.values == [(1,)]
    assert [len(each.values) for each in result.more] == [500, 1]
    assert result.more[0].columns == ["s"]
    assert rows(driver, "SELECT seq FROM seq_1_to_500; DO 1") == [(n,) for n in range(1, 501)]
    with pytest.raises(StatementError) as caught:
        driver.execute("SELECT 1; SELCT 2; SELECT 3", ())
    assert caught.value.code == 1064
    assert rows(driver, "SELECT 4;") == [(4,)]


def test_a_procedure_gives_all_its_rows(make: Open) -> None:
    driver, name = make(), MariaDb.unique("p").replace("-", "")
    driver.execute(f"CREATE PROCEDURE {name}(n INT) BEGIN SELECT 1; SELECT n AS m; END", ())
    result = driver.execute(f"CALL {name}(?)", (7,))
    assert (result.columns, result.values) == (["1"], [(1,)])
    assert result.more == [Result(["m"], [(7,)])]
    with pytest.raises(StatementError, match="2 result sets"):
        driver.query(f"CALL {name}(?)", (7,))
    driver.execute(f"DROP PROCEDURE {name}", ())


@pytest.mark.parametrize(
    "sql",
    [
        "SET autocommit = 0",
        "set @@session.autocommit := OFF",
        "SET @@autocommit=FALSE",
        "SET sql_mode='', autocommit=0",
        "/*! SET autocommit = 0 */",
    ],
)
def test_autocommit_stays_on(make: Open, sql: str) -> None:
    driver = make()
    with pytest.raises(StatementError, match=r"conn\.transaction"):
        driver.execute(sql, ())
    assert rows(driver, "SELECT @@autocommit") == [(1,)]
    driver.execute("SET autocommit = 1", ())
    driver.execute("DO 'autocommit = 0'", ())


@pytest.mark.parametrize(
    "sql",
    [
        "SET NAMES gbk",
        "set names 'latin1' collate latin1_bin",
        "SET CHARACTER SET sjis",
        "SET CHARSET DEFAULT",
        "/* a */ SET @a = 1, character_set_client = big5",
        "SET @@session.`character_set_client` = gbk",
        "SET @@character_set_results = NULL",
        "SET NAMES ?",
    ],
)
def test_the_character_set_stays_the_addresss(make: Open, sql: str) -> None:
    driver = make()
    with pytest.raises(StatementError, match="charset="):
        driver.execute(sql, ())
    assert rows(driver, "SELECT @@character_set_client") == [("utf8mb4",)]


@pytest.mark.parametrize(
    "sql",
    [
        "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
        "SET NAMES 'utf8mb4'",
        "SET @a = 'NAMES gbk autocommit = 0', @b = 1",
        "SET sql_mode = 'ANSI_QUOTES', autocommit = 'ON'",
        "SET time_zone = '+00:00'",
    ],
)
def test_other_settings_are_the_users(make: Open, sql: str) -> None:
    assert make().execute(sql, ()) == Result(affected=0)


def test_the_word_delimiter_is_a_word_like_any(make: Open) -> None:
    sql = "SELECT 1 AS delimiter /* delimiter // */, 'delimiter ;' AS b"
    assert make().execute(sql, ()) == Result(["delimiter", "b"], [(1, "delimiter ;")])


def test_a_transaction_is_what_the_server_says_it_is(make: Open, table: str) -> None:
    driver = make()
    driver.begin()
    assert driver.in_transaction()
    driver.execute(f"INSERT INTO {table} (name) VALUES ('a')", ())
    with pytest.raises(StatementError):
        driver.execute(f"INSERT INTO {table} (id) VALUES (1)", ())
    assert driver.in_transaction()
    driver.rollback()
    assert not driver.in_transaction()
    driver.begin()
    driver.execute(f"ALTER TABLE {table} ADD COLUMN more INT", ())
    assert not driver.in_transaction()
    with pytest.raises(StatementError, match="ended it"):
        driver.commit()
    driver.rollback()


def test_a_deadlock_ends_the_transaction_of_its_victim(make: Open, table: str) -> None:
    drivers = make(), make()
    drivers[0].execute(f"INSERT INTO {table} (name) VALUES ('a'), ('b')", ())
    for number, driver in enumerate(drivers, 1):
        driver.begin()
        driver.execute(f"UPDATE {table} SET name = 'x' WHERE id = ?", (number,))
    outcomes: list[tuple[bool, Any]] = []

    def cross(driver: MysqlDriver, number: int) -> None:
        code = None
        try:
            driver.execute(f"UPDATE {table} SET name = 'y' WHERE id = ?", (number,))
        except StatementError as error:
            code = error.code
        outcomes.append((driver.in_transaction(), code))

    threads = [
        threading.Thread(target=cross, args=pair) for pair in ((drivers[0], 2), (drivers[1], 1))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes, key=str) == [(False, 1213), (True, None)]
    for driver in drivers:
        driver.rollback()


def test_a_statement_that_is_too_long_is_not_sent(make: Open) -> None:
    driver = make("maxAllowedPacket=1000")
    with pytest.raises(StatementError, match="max_allowed_packet") as caught:
        driver.execute("SELECT ?", ("x" * 1000,))
    assert caught.value.code == 1153
    assert rows(driver, "SELECT 1") == [(1,)]
    driver = make()
    with pytest.raises(StatementError, match="max_allowed_packet"):
        driver.execute("SELECT LENGTH(?)", ("x" * 17_000_000,))
    assert rows(driver, "SELECT LENGTH(?)", "x" * 16_000_000) == [(16_000_000,)]


def test_compressed_links_carry_long_results(make: Open) -> None:
    driver = make("compress=true")
    assert rows(driver, "SHOW STATUS LIKE 'Compression'") == [("Compression", "ON")]
    found = rows(driver, "SELECT seq, REPEAT(MD5(seq), 10) FROM seq_1_to_20000")
    assert [row[0] for row in found] == list(range(1, 20_001))
    assert rows(driver, "SELECT ?", "x" * 1_000_000) == [("x" * 1_000_000,)]


def test_files_are_loaded_only_where_the_address_allows_it(
    make: Open, table: str, tmp_path: Path
) -> None:
    file = tmp_path / "names.txt"
    file.write_text("7\tseven\n8\teight\n")
    sql = f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE {table} (id, name)"
    with pytest.raises(StatementError, match="allowAllFiles") as caught:
        make().execute(sql, ())
    assert caught.value.code
    driver = make("allowAllFiles=true")
    assert driver.execute(sql, ()).affected == 2
    assert rows(driver, f"SELECT * FROM {table}") == [(7, "seven"), (8, "eight")]
    with pytest.raises(StatementError, match=r"not exist|not be read"):
        driver.execute(sql.replace("names", "nobody"), ())
    assert not driver.alive()


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ("autocommit=0", "conn.transaction"),
        ("charset=martian", "martian"),
        ("charset=utf8mb4&collation=latin1_german1_ci", "character set"),
        ("no_such_variable=1", "no_such_variable"),
    ],
)
def test_a_session_that_cannot_be_had_is_refused(make: Open, params: str, text: str) -> None:
    with pytest.raises(FatalError, match=text):
        make(params)


def test_the_first_character_set_that_the_server_knows_is_taken(make: Open) -> None:
    driver = make("charset=martian,utf8mb3,latin1")
    assert rows(driver, "SELECT @@character_set_client") == [("utf8mb3",)]


def test_a_server_that_has_become_read_only_is_left(make: Open, table: str) -> None:
    for params, stays in (("", True), ("rejectReadOnly=true", False)):
        driver = make(params)
        driver.execute("SET SESSION TRANSACTION READ ONLY", ())
        with pytest.raises(StatementError) as caught:
            driver.execute(f"INSERT INTO {table} (name) VALUES ('a')", ())
        assert caught.value.code == 1792
        assert driver.alive() is stays


# many rows


@pytest.mark.parametrize(
    ("sql", "row"),
    [
        ("INSERT INTO t VALUES (?, ?)", "(?, ?)"),
        ("insert ignore into t (a, `b)`) values (1, ?, f(?))", "(1, ?, f(?))"),
        ("REPLACE INTO t VALUE (?)", "(?)"),
        ("INSERT INTO t VALUES (?) ON DUPLICATE KEY UPDATE a = VALUES(a), b = 2;", "(?)"),
        ("INSERT INTO t VALUES ('(?', ?) /* ) ? */", "('(?', ?)"),
        ("/* VALUES (1) */ INSERT INTO t VALUES (?)", "(?)"),
        ("INSERT INTO t VALUES (?), (?)", None),
        ("INSERT INTO t VALUES (?) ON DUPLICATE KEY UPDATE a = ?", None),
        ("INSERT INTO t SELECT ?", None),
        ("INSERT INTO t VALUES (?) RETURNING a", None),
        ("INSERT INTO t VALUES (1)", None),
        ("UPDATE t SET a = ?", None),
        ("SELECT * FROM t WHERE a IN (VALUES (?))", None),
    ],
)
def test_inserts_of_one_row_are_recognized(sql: str, row: str | None) -> None:
    template = template_of(sql)
    found = template.rows
    if row is None:
        assert found is None
    else:
        assert found is not None
        whole = "?".join(template.pieces)
        assert whole[found[0] : len(whole) - len(template.pieces[-1]) + found[1]] == row


def test_many_rows_go_in_few_statements(make: Open, table: str) -> None:
    driver = make()
    before = int(rows(driver, "SHOW SESSION STATUS LIKE 'Questions'")[0][1])
    given = [(f"name {n} % %s ' \\ ?",) for n in range(50_000)]
    result = driver.executemany(f"INSERT INTO {table} (name) VALUES (?)", given)
    after = int(rows(driver, "SHOW SESSION STATUS LIKE 'Questions'")[0][1])
    assert result == Result(affected=50_000)
    assert after - before < 10
    assert rows(driver, f"SELECT name FROM {table} ORDER BY id") == given


@pytest.mark.parametrize("inside", [False, True])
def test_many_rows_are_all_written_or_none(make: Open, table: str, inside: bool) -> None:
    driver = make()
    if inside:
        driver.begin()
        driver.execute(f"INSERT INTO {table} (id) VALUES (1000000)", ())
    long = "x" * 2_000
    doubled = [*((n, long) for n in range(1, 3_000)), (5, long)]
    with pytest.raises(StatementError) as caught:
        driver.executemany(f"INSERT INTO {table} (id, name) VALUES (?, ?)", doubled)
    assert caught.value.code == 1062
    with pytest.raises(StatementError, match="row 2999: the statement has 2 placeholders"):
        driver.executemany(f"INSERT INTO {table} (id, name) VALUES (?, ?)", [*doubled[:2998], (1,)])
    with pytest.raises(StatementError, match="nan"):
        driver.executemany(
            f"INSERT INTO {table} VALUES (?, ?)", [*doubled[:2998], (1, float("nan"))]
        )
    assert driver.in_transaction() is inside
    assert rows(driver, f"SELECT COUNT(*) FROM {table}") == [(int(inside),)]
    driver.rollback()


def test_statements_other_than_inserts_run_once_for_each_row(make: Open, table: str) -> None:
    driver = make()
    driver.executemany(f"INSERT INTO {table} VALUES (?, ?)", [(n, "a") for n in range(1, 11)])
    updated = driver.executemany(
        f"UPDATE {table} SET name = ? WHERE id > ?", [("b", 5), ("c", 8), ("d", 99)]
    )
    assert updated.affected == 7
    assert driver.executemany("SELECT ?", [(1,), (2,)]) == Result()
    assert driver.executemany(f"DELETE FROM {table}", [(), ()]).affected == 10
    assert driver.executemany(f"DELETE FROM {table}", []).affected == 0
    with pytest.raises(StatementError, match="in order"):
        driver.executemany(f"INSERT INTO {table} VALUES (?, ?)", [{"a": 1}])


# values at the edge


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("inf"), "inf"),
        (Decimal("NaN"), "NaN"),
        (Decimal("-Infinity"), "Infinity"),
        (10**65, "65 digits"),
        (Decimal("1E+400"), "65 digits"),
        (Decimal("1E-70"), "65 digits"),
        ("half \ud800", "surrogate"),
        (object(), "object"),
        ({1, 2}, "a set stands where one value does"),
        ({"a": b"x"}, "JSON"),
        ([float("nan")], "JSON"),
    ],
)
def test_a_value_that_mysql_cannot_hold_is_refused_in_words(
    make: Open, value: object, text: str
) -> None:
    driver = make()
    with pytest.raises(StatementError, match=text):
        driver.execute("SELECT ?", (value,))
    assert rows(driver, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("text", ["5", "-0.10", "1E+64", "0E-10", "123456789.987654321", "-7E+3"])
def test_a_decimal_stays_a_decimal(make: Open, text: str) -> None:
    found = rows(make(), "SELECT ?", Decimal(text))[0][0]
    assert type(found) is Decimal
    assert found == Decimal(text)


JSON, VECTOR, BIT, STRING, SET_FLAG, UTF8, BINARY = 245, 242, 16, 254, 2048, 45, 63


@pytest.mark.parametrize(
    ("kind", "flags", "charset", "raw", "value"),
    [
        # as MySQL tells them, where MariaDB has none or tells another type
        (JSON, 0, BINARY, b'{"a": [1, null, "x"]}', {"a": [1, None, "x"]}),
        (JSON, 0, UTF8, b"3", 3),
        (VECTOR, 0, BINARY, b"\0\0\x80?\0\0\0@", [1.0, 2.0]),
        (BIT, 0, BINARY, b"\x01\x00", 256),
        (STRING, SET_FLAG, UTF8, b"a,b", {"a", "b"}),
        (STRING, SET_FLAG, UTF8, b"", set()),
        (STRING, 0, UTF8, b"\xff", b"\xff"),
        (STRING, 0, BINARY, b"abc", b"abc"),
        (JSON, 0, UTF8, b"no json", "no json"),
    ],
)
def test_columns_are_read_by_their_type_and_null_is_none(
    kind: int, flags: int, charset: int, raw: bytes, value: object
) -> None:
    column = ("c", kind, None, None, None, None, 1, flags, charset)
    found = to_rows([(raw,), (None,), (raw,)], readers([column], "utf-8", None))
    assert found == [(value,), (None,), (value,)]
    assert type(found[0][0]) is type(value)


def test_a_query_that_cannot_be_stopped_costs_its_link(make: Open) -> None:
    name, admin = MariaDb.unique("m").replace("-", ""), make()
    admin.execute(
        f"CREATE USER {name}@'127.0.0.1' IDENTIFIED BY 'p' WITH MAX_USER_CONNECTIONS 1", ()
    )
    long = (
        "SELECT a.ordinal_position FROM information_schema.columns a, information_schema.columns b,"
        " information_schema.columns c"
    )
    address = f"mysql://{name}:p@tcp({admin.address.host}:{admin.address.port})/"
    for inside in (False, True):
        driver = MysqlDriver(parse_address(address))
        driver.open(Deadline(10))
        if inside:
            driver.begin()
        result = driver.execute(long, ())
        assert result.rest is not None
        if inside:
            with pytest.raises(ConnectionError):
                result.rest.close()
        else:
            result.rest.close()
        assert not driver.alive()
        assert not driver.in_transaction()
        driver.close()
        gone = f"SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{name}'"
        until(lambda: rows(admin, gone) == [(0,)], "the server noticed")  # noqa: B023
    admin.execute(f"DROP USER {name}@'127.0.0.1'", ())


def test_what_python_cannot_hold_comes_as_text(make: Open) -> None:
    driver = make("sql_mode=%27%27")
    driver.execute("CREATE TEMPORARY TABLE z (d DATE, t DATETIME, s TIMESTAMP(3) NULL, y YEAR)", ())
    driver.execute(
        "INSERT INTO z VALUES (0, 0, 0, 0), ('2024-02-00', '2024-00-01', NULL, 1999)", ()
    )
    assert rows(driver, "SELECT * FROM z") == [
        ("0000-00-00", "0000-00-00 00:00:00", "0000-00-00 00:00:00.000", 0),
        ("2024-02-00", "2024-00-01 00:00:00", None, 1999),
    ]


def test_an_address_with_an_impossible_zone_does_not_come_here() -> None:
    with pytest.raises(AddressError, match="zone"):
        plan("/d?loc=Mars%2FBase")


@pytest.mark.parametrize(
    "sql",
    [
        "SET NAMES gbk",
        "-- hi\nSET NAMES gbk",
        "# hi\nSET NAMES gbk",
        "/*!SET NAMES gbk*/",
        "/*!50000 SET character_set_client = gbk */",
        "/* why */ /*M!100100 SET autocommit = 0 */",
    ],
)
def test_a_SET_that_hides_behind_comments_is_refused(sql: str) -> None:
    with pytest.raises(StatementError):
        check_settings(sql, UTF8_CHARSET)


@pytest.mark.parametrize(
    "sql", ["/*!40101 SET NAMES utf8 */", "SELECT 'SET NAMES gbk'", "SET @a = 'NAMES gbk'"]
)
def test_what_sets_nothing_of_ours_is_taken(sql: str) -> None:
    check_settings(sql, UTF8_CHARSET)


@pytest.mark.parametrize("value", ["\u303f\\', 1) -- ", "é'", b"\xe3\x80\xbf\\', 1) -- "])
def test_a_value_is_no_sql_whatever_the_session_reads(value: str | bytes) -> None:
    """In gbk the last byte of a character may take the backslash for its own."""
    written = literals(UTF8_CHARSET, backslashes=True, zone=UTC, truncate_us=0)(value)
    assert written.isascii()
    assert b"\\" not in written
    assert written.count(b"'") == 2


@pytest.mark.parametrize(
    "name", ["character_set_client", "character_set_results", "collation_connection"]
)
def test_an_address_does_not_change_the_charset_behind_our_back(name: str) -> None:
    with pytest.raises(FatalError, match="charset="):
        plan_of(parse_address(f"mysql://u:p@tcp(h:1)/d?{name}=gbk"))


def test_a_placeholder_in_a_comment_that_the_server_runs_takes_a_value(make: Open) -> None:
    driver = make()
    assert driver.execute("SELECT ? /*!50000 , ? */, 3", (1, "*/ 'x")).values == [(1, "*/ 'x", 3)]
    # this server does not run it: the value must not end the comment
    assert driver.execute("SELECT ? /*!999999 , ? */, 3", (1, "*/, 2 /*")).values == [(1, 3)]


def test_the_kernel_looks_after_the_link(make: Open) -> None:
    """A server whose machine is gone would be waited for without an end: the library asks for none."""
    driver = make()
    with socket.socket(fileno=os.dup(driver._fileno())) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

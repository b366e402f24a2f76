"""The clickhouse driver: addresses as arguments, statements, values as SQL, columns; and the driver itself on
a real server."""

from __future__ import annotations

import inspect
import ipaddress
import random
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import clickhouse_driver
import pytest
from clickhouse_driver.connection import Connection as LibraryConnection

import trunkline
from tests.servers.clickhouse import ClickHouse
from trunkline.actors.driver import FatalError, Result, Rows
from trunkline.actors.drivers.clickhouse import driver as module
from trunkline.actors.drivers.clickhouse.driver import ClickhouseDriver
from trunkline.actors.drivers.clickhouse.literals import literal, unescaped
from trunkline.actors.drivers.clickhouse.plan import PARAMETERS, Plan, plan
from trunkline.actors.drivers.clickhouse.sql import Insert, statement
from trunkline.actors.drivers.clickhouse.types import fitted
from trunkline.address.clickhouse_params import UNION, V2
from trunkline.deadline import Deadline
from trunkline.errors import ClosedError, DialError, StatementError

TOKYO = ZoneInfo("Asia/Tokyo")


def planned(text: str) -> Plan:
    return plan(trunkline.parse_address(text))


# the address


def test_every_parameter_of_clickhouse_go_has_a_fate() -> None:
    assert set(PARAMETERS) == {"username", "password", "database", *V2, *UNION}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("username=a&password=b&database=c", {"user": "a", "password": "b", "database": "c"}),
        ("", {"user": "default", "password": "", "database": "", "client_name": "trunkline"}),
        ("compress=true", {"compression": "lz4"}),
        ("compress=lz4hc&compress_level=9", {"compression": "lz4hc"}),
        ("compress=zstd", {"compression": "zstd"}),
        ("compress=none", {"compression": False}),
        ("secure=true", {"secure": True, "verify": True}),
        ("secure&skip_verify", {"secure": True, "verify": False}),
        ("secure=true&insecure=true", {"secure": True, "verify": False}),
        ("secure=true&tls_server_name=x", {"server_hostname": "x"}),
        ("client_info_product=a/1,b/2", {"client_name": "trunkline a/1 b/2"}),
        ("secure=true|cafile=/ca&servername=y", {"ca_certs": "/ca", "server_hostname": "y"}),
        ("secure=true|insecureSkipVerify=true", {"verify": False}),
    ],
)
def test_a_parameter_becomes_an_argument_of_the_library(
    query: str, expected: dict[str, Any]
) -> None:
    arguments = planned(f"clickhouse://h?{query}").arguments
    assert {name: arguments[name] for name in expected} == expected
    LibraryConnection("h", **arguments)  # it knows every one of them


@pytest.mark.parametrize(
    ("query", "connect_s", "read_s"),
    [
        ("", 30, 300),
        ("timeout=3", 3, 300),
        ("dial_timeout=1500ms", 1.5, 300),
        ("read_timeout=10", 30, 10),
        ("read_timeout=1m", 30, 60),
        ("write_timeout=7", 30, 300),
    ],
)
def test_times_are_seconds_or_durations(query: str, connect_s: float, read_s: float) -> None:
    found = planned(f"clickhouse://tcp://h:9000?{query}")
    assert (found.connect_s, found.read_s) == (connect_s, read_s)


def test_what_nobody_knows_is_a_setting_of_the_server() -> None:
    found = planned(
        "clickhouse://h?max_threads=2&use_uncompressed_cache=true&distributed_product_mode=Local&block_size=5"
    )
    assert found.settings == {
        "max_threads": 2,
        "use_uncompressed_cache": 1,
        "distributed_product_mode": "local",
    }
    assert found.client_settings == {"insert_block_size": 5}


def test_parameters_without_effect_change_nothing() -> None:
    names = [name for name, fate in PARAMETERS.items() if fate == "no effect"]
    values = {"conn_max_lifetime": "1h", "write_timeout": "5s"}
    query = "&".join(f"{name}={values.get(name, '1')}" for name in names)
    assert planned(f"clickhouse://h?{query}") == planned("clickhouse://h")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("clickhouse://http://h:8123/db", "not HTTP"),
        ("clickhouse://https://h:8443/db?secure=true", "not HTTP"),
        ("clickhouse://h?compress=gzip", "over HTTP only"),
        ("clickhouse://h?http_path=/x", "http_path has no meaning"),
        ("clickhouse://h?http_proxy=http://p", "http_proxy has no meaning"),
        ("clickhouse://h|cafile=/x", "needs TLS"),
    ],
)
def test_what_has_no_counterpart_is_refused(address: str, reason: str) -> None:
    with pytest.raises(FatalError, match=reason):
        planned(address)


def test_several_servers_are_tried_in_the_order_of_the_strategy() -> None:
    text = "clickhouse://a,b:1,c/db?alt_hosts=d:4"
    inside = (("a", 9000), ("b", 1), ("c", 9000), ("d", 4))
    assert planned(text).hosts == inside
    assert planned(f"{text}&secure=true").hosts[0] == ("a", 9440)
    random.seed(7)
    for strategy in ("random", "time_random", "round_robin"):
        found = [planned(f"{text}&connection_open_strategy={strategy}").hosts for _ in range(40)]
        assert {tuple(sorted(hosts)) for hosts in found} == {tuple(sorted(inside))}
        assert len({hosts[0] for hosts in found}) == 4


# statements


@pytest.mark.parametrize(
    ("sql", "head", "rows"),
    [
        ("INSERT INTO t VALUES", "INSERT INTO t VALUES", ()),
        ("insert into t (a, b)", "insert into t (a, b) VALUES", ()),
        ("INSERT INTO t FORMAT Native", "INSERT INTO t  VALUES", ()),
        ("INSERT INTO t (`values`) VALUES (1);", "INSERT INTO t (`values`) VALUES", ((1,),)),
        ("INSERT INTO t VALUES (1, -2, 0.29)", "INSERT INTO t VALUES", ((1, -2, Decimal("0.29")),)),
        (r"INSERT INTO t VALUES ('it''s', 'a\'b\n') -- (", "INSERT INTO t VALUES", (("it's", "a'b\n"),)),
        ("INSERT INTO t VALUES (NULL, true, [1, [2]], (1, 'a'), [])", "INSERT INTO t VALUES",
         ((None, True, [1, [2]], (1, "a"), []),)),
        ("INSERT INTO t VALUES (1), /* , */ (2)\n,(3)", "INSERT INTO t VALUES", ((1,), (2,), (3,))),
        ("INSERT INTO t VALUES ((5), 1e3)", "INSERT INTO t VALUES", ((5, 1000.0),)),
    ],
)  # fmt: skip
def test_the_rows_of_an_insert_are_read_from_its_text(sql: str, head: str, rows: Any) -> None:
    found = statement(sql)
    assert isinstance(found, Insert)
    assert (found.head, found.rows) == (head, rows)


@pytest.mark.parametrize(
    ("sql", "sent"),
    [
        (
            "INSERT INTO t VALUES (now(), ?), (1+1, 'a')",
            "INSERT INTO t SELECT now(), ? UNION ALL SELECT 1+1, 'a'",
        ),
        ("INSERT INTO t VALUES (0x10)", "INSERT INTO t SELECT 0x10"),
        ("INSERT INTO t VALUES ('a' 'b')", "INSERT INTO t SELECT 'a' 'b'"),
        ("INSERT INTO t VALUES ('a'/**/'b')", "INSERT INTO t SELECT 'a' 'b'"),
        (r"INSERT INTO t VALUES ('a\%')", r"INSERT INTO t SELECT 'a\%'"),
        ("INSERT INTO t SELECT 'VALUES (1)'", "INSERT INTO t SELECT 'VALUES (1)'"),
        ("INSERT INTO t (a) (SELECT 1)", "INSERT INTO t (a) (SELECT 1)"),
        ("SELECT 1;", "SELECT 1"),
    ],
)
def test_what_the_server_must_work_out_is_sent_as_text(sql: str, sent: str) -> None:
    assert statement(sql) == sent


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT 1; SELECT 2", "one statement at a time"),
        (" -- nothing", "no statement"),
        ("INSERT INTO t FORMAT CSV 1,2", "takes no data in a FORMAT"),
        ("INSERT INTO t FROM INFILE 'x' FORMAT CSV", "takes no data"),
        ("INSERT INTO t VALUES 1", "rows in brackets"),
        ("INSERT INTO t VALUES (1", "not closed"),
        ("INSERT INTO t VALUES ($0)", "numbered from 1"),
    ],
)
def test_what_would_wait_for_data_is_refused(sql: str, reason: str) -> None:
    with pytest.raises(StatementError, match=reason):
        statement(sql)


def test_placeholders_of_rows_take_their_values() -> None:
    found = statement("INSERT INTO t VALUES ($2, 'x', [$1, 5]), ($1, 'y', [])")
    assert isinstance(found, Insert)
    assert found.filled([1, 2]) == [[2, "x", [1, 5]], [1, "y", []]]
    with pytest.raises(StatementError, match="2 placeholders"):
        found.filled([1])


def test_rows_of_executemany_are_passed_on_as_they_are() -> None:
    found = statement("INSERT INTO t VALUES (?, ?)")
    assert isinstance(found, Insert)
    rows = [[1, 2], [3, 4]]
    assert found.filled_many(rows) is rows


@pytest.mark.parametrize("text", ["'open", r"'\q'", r"'\N'"])
def test_a_string_that_only_the_server_understands(text: str) -> None:
    assert unescaped(text) is None


def test_escapes_of_a_string() -> None:
    assert unescaped(r"'\0\t\\\'\x41é'") == "\0\t\\'Aé"
    assert unescaped(r"'\xff'") == b"\xff"


# values as SQL


@pytest.mark.parametrize(
    ("value", "sql"),
    [
        (None, "NULL"),
        (True, "1"),
        (-3, "(-3)"),
        (2**64 - 1, "18446744073709551615"),
        (2**64, "toInt128('18446744073709551616')"),
        (2**127, "toUInt128('170141183460469231731687303715884105728')"),
        (-(2**255), f"toInt256('{-(2**255)}')"),
        (1.5, "1.5"),
        (-0.0, "(-0.0)"),
        (float("inf"), "inf"),
        (5e-324, "reinterpretAsFloat64(unhex('0100000000000000'))"),
        ("'); DROP TABLE t; --\\", "'\\'); DROP TABLE t; --\\\\'"),
        (b"\xff'", "unhex('ff27')"),
        (Decimal("-1.50"), "toDecimal64('-1.50', 2)"),
        (Decimal("1E+3"), "toDecimal64('1000', 0)"),
        (Decimal("0." + "1" * 20), "toDecimal128('0.11111111111111111111', 20)"),
        (date(1970, 1, 2), "toDate(1)"),
        (date(1900, 1, 1), "toDate32('1900-01-01')"),
        (datetime(2020, 1, 1, 9, tzinfo=TOKYO), "toDateTime(1577836800)"),
        (datetime(2020, 1, 1, 9), "toDateTime(1577836800)"),
        (
            datetime(2020, 1, 1, 0, 0, 0, 5, tzinfo=UTC),
            "toDateTime64('2020-01-01 00:00:00.000005', 6, 'UTC')",
        ),
        (timedelta(seconds=90), "toIntervalSecond(90)"),
        (timedelta(microseconds=-5), "toIntervalMicrosecond(-5)"),
        (UUID(int=1), "toUUID('00000000-0000-0000-0000-000000000001')"),
        (ipaddress.ip_address("::1"), "toIPv6('::1')"),
        ([1, ["a"]], "[1, ['a']]"),
        ([-1, 2**40], "[toInt64(-1), toInt64(1099511627776)]"),
        ((1,), "tuple(1)"),
        ((1, -2), "(1, (-2))"),
        ({"a": 1}, "map('a', 1)"),
    ],
)
def test_a_value_as_sql(value: Any, sql: str) -> None:
    assert literal(value, TOKYO) == sql


@pytest.mark.parametrize(
    "value",
    [
        object(),
        "\ud800",
        2**256,
        Decimal("NaN"),
        Decimal("1" * 77),
        datetime(1800, 1, 1),
        date(1, 1, 1),
        (),
    ],
)
def test_a_value_that_ClickHouse_does_not_have(value: Any) -> None:
    with pytest.raises(StatementError):
        literal(value, UTC)


def test_a_list_nested_too_deep_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(StatementError, match="deep"):
        literal(value, UTC)
    while value:
        value = value.pop()


# columns


@pytest.mark.parametrize(
    ("kind", "value", "written"),
    [
        ("Int8", "5", 5),
        ("Int128", -(2**127), -(2**127)),
        ("Bool", True, True),
        ("Float64", Decimal("0.5"), 0.5),
        ("Decimal(5, 2)", 1.239, 124),
        ("Decimal(5, 2)", "1.5", 150),
        ("Date", "2020-01-02", date(2020, 1, 2)),
        ("Date", datetime(2020, 1, 2, 3), date(2020, 1, 2)),
        ("DateTime", "2020-01-01 09:00:00", 1577836800),
        ("DateTime('UTC')", date(1970, 1, 2), 86400),
        ("DateTime64(3, 'UTC')", datetime(1969, 12, 31, 23, 59, 59, 999_000), -1),
        ("DateTime64(9)", datetime(1970, 1, 1, 9, 0, 0, 7), 7000),
        ("Nullable(UUID)", str(UUID(int=7)), UUID(int=7)),
        ("LowCardinality(Nullable(String))", bytearray(b"x"), b"x"),
        ("Array(Array(Nullable(Int8)))", [["1", None], []], [[1, None], []]),
        ("Tuple(a Int8, `b c` Array(Date))", (1, ["2020-01-02"]), (1, [date(2020, 1, 2)])),
        ("Map(String, Int8)", {"a": "1"}, {"a": 1}),
        ("Enum8('a, \\'(b)' = 1, 'c' = -2)", "a, '(b)", "a, '(b)"),
    ],
)
def test_a_value_is_made_to_fit_its_column(kind: str, value: Any, written: Any) -> None:
    assert fitted([[[value]]], [("c", kind)], TOKYO) == [[written]]


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("UInt8", 256, "256 is not between 0 and 255"),
        ("Int64", 2**63, "is not between"),
        ("UInt128", -1, "is not between"),
        ("Int256", 2**255, "is not between"),
        ("Int8", 1.0, "a whole number is wanted, not float"),
        ("Int8", None, "not Nullable"),
        ("Float32", 1e300, "32 bits"),
        ("Float64", 10**400, "too large"),
        ("Float64", "x", "a number is wanted"),
        ("Decimal(4, 2)", Decimal("100"), "4 digits"),
        ("Decimal(4, 2)", Decimal("1.001"), "more than 2 digits"),
        ("Decimal(4, 2)", Decimal("NaN"), "does not fit"),
        ("String", 5, "text or bytes are wanted, not int"),
        ("String", "\udfff", "surrogate"),
        ("FixedString(2)", "éé", "longer than 2 bytes"),
        ("Date", date(1969, 12, 31), "1969-12-31 is not between"),
        ("Date", "nonsense", "a date is wanted"),
        ("DateTime", datetime(2107, 1, 1), "1970-01-01"),
        ("DateTime", datetime(1960, 1, 1, tzinfo=UTC), "1970-01-01"),
        ("DateTime64(6)", datetime(1800, 1, 1), "1900"),
        ("UUID", "zzz", "a UUID is wanted"),
        ("Bool", "yes", "True or False"),
        ("Enum8('a' = 1)", "b", "names a"),
        ("Array(Int8)", 5, "takes a list"),
        ("Array(Int8)", [1, 300], "300 is not between"),
        ("Tuple(Int8, Int8)", (1,), "tuple of 2"),
        ("Map(String, Int8)", [1], "takes a dict"),
    ],
)
def test_a_value_that_does_not_fit_is_named_by_row_and_column(
    kind: str, value: Any, reason: str
) -> None:
    good: Any = fitted([], [("c", kind)], UTC)
    assert good == [[]]
    with pytest.raises(StatementError, match=reason) as caught:
        fitted([[[value]]], [("c", kind)], UTC)
    assert str(caught.value).startswith(f"row 1, column c ({kind}): ")


def test_the_row_is_found_among_many() -> None:
    rows = [[n % 100, "x"] for n in range(10_000)]
    rows[7_000][0] = 1000
    with pytest.raises(StatementError, match="row 7001, column a"):
        fitted([rows], [("a", "UInt8"), ("b", "String")], UTC)


def test_rows_of_wrong_lengths_and_kinds_are_refused() -> None:
    kinds = [("a", "UInt8"), ("b", "String")]
    with pytest.raises(StatementError, match="row 2 has 1 value, and the columns are 2: a, b"):
        fitted([[[1, "x"], [1]]], kinds, UTC)
    with pytest.raises(StatementError, match="row 2 has no value for the column b"):
        fitted([[{"a": 1, "b": "x"}, {"a": 1}]], kinds, UTC)
    with pytest.raises(StatementError, match="each row"):
        fitted([["ab"]], kinds, UTC)


def test_datetimes_with_and_without_zone_may_stand_in_one_column() -> None:
    given = [[datetime(2020, 1, 1, 9)], [datetime(2020, 1, 1, tzinfo=UTC)]]
    assert fitted([given], [("t", "DateTime")], TOKYO) == [[1577836800, 1577836800]]


# the library


def test_the_names_of_the_library_that_we_stand_on_are_there() -> None:
    """Replaced or used beside its documented calls: see `clickhouse_client`."""
    client = clickhouse_driver.Client("h")
    for name in (
        "establish_connection",
        "disconnect",
        "send_data",
        "receive_profile_events",
        "cancel",
    ):
        assert callable(getattr(client, name))
    assert list(inspect.signature(client.send_data).parameters)[:2] == ["sample_block", "data"]
    connection = client.connection
    for name in ("connect", "ping", "send_data"):
        assert callable(getattr(connection, name))
    assert connection.connected is connection.is_query_executing is False
    assert connection.socket is connection.server_info is None
    for name in ("database", "host", "connect_timeout", "send_receive_timeout"):
        assert name in vars(LibraryConnection("h")) or name == "host"


# a real server


def drain(rows: Rows) -> None:
    while rows.fetch(100_000):
        pass


@pytest.fixture
def driver(clickhouse: ClickHouse) -> Iterator[ClickhouseDriver]:
    found = opened(f"clickhouse://u:p@{clickhouse.address}/default")
    yield found
    found.close()


def opened(text: str) -> ClickhouseDriver:
    driver = ClickhouseDriver(trunkline.parse_address(text))
    driver.open(Deadline(10))
    return driver


def values(driver: ClickhouseDriver, sql: str, *binds: Any) -> list[Any]:
    return [*map(tuple, driver.execute(sql, binds).values)]


@pytest.fixture
def table(driver: ClickhouseDriver) -> str:
    name = f"d{uuid4().hex[:12]}"
    driver.execute(f"CREATE TABLE {name} (a UInt8, b Nullable(String)) ENGINE = Memory", ())
    return name


def test_results_of_each_kind_of_statement(driver: ClickhouseDriver, table: str) -> None:
    assert driver.execute("SELECT 1 AS a, 'x' AS b", ()) == Result(
        columns=["a", "b"], values=[[1, "x"]]
    )
    assert (
        driver.execute(f"INSERT INTO {table} VALUES (1, 'it''s'), (?, ?)", (2, None)).affected == 2
    )
    assert driver.execute(f"INSERT INTO {table} VALUES (1 + 2, upper(?))", ("x",)) == Result()
    assert driver.execute(f"INSERT INTO {table} SELECT 4, 'y'", ()) == Result()
    assert driver.execute(f"INSERT INTO {table} (a)", [[(5,)]]).affected == 1
    assert driver.execute(f"INSERT INTO {table} VALUES", [[{"b": "z", "a": 6}]]).affected == 1
    assert driver.executemany(f"INSERT INTO {table} VALUES (?, 'k')", [(7,), (8,)]).affected == 2
    assert values(driver, f"SELECT a, b FROM {table} ORDER BY a") == [
        (1, "it's"), (2, None), (3, "X"), (4, "y"), (5, None), (6, "z"), (7, "k"), (8, "k"),
    ]  # fmt: skip


def test_executemany_of_another_statement_runs_it_again_and_again(
    driver: ClickhouseDriver, table: str
) -> None:
    driver.executemany(f"INSERT INTO {table} SELECT ?, 'n'", [(1,), (2,)])
    assert values(driver, f"SELECT count() FROM {table}") == [(2,)]


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200_000])
def test_a_result_of_any_length_arrives_whole(driver: ClickhouseDriver, count: int) -> None:
    result = driver.execute("SELECT number FROM system.numbers LIMIT ?", (count,))
    found = [*result.values]
    while result.rest is not None and (more := result.rest.fetch(10_000)):
        found += more
    assert found == [[n] for n in range(count)]
    assert values(driver, "SELECT 1") == [(1,)]


def test_rows_that_cannot_travel_leave_the_link_in_step(
    driver: ClickhouseDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(kind: str, numbers: bool) -> Any:
        raise ValueError("a moment is not between the years 1 and 9999")

    monkeypatch.setattr(module, "travelling", refuse)
    with pytest.raises(StatementError, match="years"):
        driver.execute("SELECT number FROM numbers(1000000)", ())
    monkeypatch.undo()
    assert values(driver, "SELECT 1") == [(1,)]


def test_open_rows_keep_other_statements_out_until_they_are_closed(
    driver: ClickhouseDriver,
) -> None:
    rows = driver.query("SELECT number FROM system.numbers", ())
    assert [*rows.fetch(2)] == [[0], [1]]
    with pytest.raises(StatementError, match="not all read"):
        driver.execute("SELECT 1", ())
    rows.close()
    rows.close()
    assert values(driver, "SELECT 1") == [(1,)]


def test_an_error_in_the_midst_of_rows_is_told_where_it_comes(driver: ClickhouseDriver) -> None:
    rows = driver.query("SELECT throwIf(number = 1000000) FROM system.numbers", ())
    with pytest.raises(StatementError) as caught:
        drain(rows)
    assert caught.value.code == 395
    assert values(driver, "SELECT 1") == [(1,)]


def test_session_state_outlives_refused_statements(driver: ClickhouseDriver) -> None:
    driver.execute("SET max_threads = 1", ())
    driver.execute("CREATE TEMPORARY TABLE tmp (a UInt8)", ())
    for sql, binds in (
        ("SELECT * FROM there_is_none", ()),
        ("INSERT INTO there_is_none VALUES (1)", ()),
        ("INSERT INTO tmp VALUES (?)", (300,)),
        ("SELECT throwIf(number = 5) FROM system.numbers", ()),
    ):
        with pytest.raises(StatementError):
            driver.execute(sql, binds)
    assert values(driver, "SELECT value FROM system.settings WHERE name = 'max_threads'") == [
        ("1",)
    ]
    assert values(driver, "SELECT count() FROM tmp") == [(0,)]


def test_the_link_is_usable_after_what_the_server_cannot_even_read(
    driver: ClickhouseDriver,
) -> None:
    with pytest.raises(StatementError) as caught:
        driver.execute("SELCT 1", ())
    assert caught.value.code == 62
    assert "\n" not in str(caught.value)
    assert "Stack trace" not in str(caught.value)
    assert driver.alive()
    assert values(driver, "SELECT 1") == [(1,)]


def test_a_database_that_is_not_there_is_not_used_by_the_next_dial(
    driver: ClickhouseDriver,
) -> None:
    driver.execute("USE system", ())
    with pytest.raises(StatementError) as caught:
        driver.execute("USE there_is_none", ())
    assert caught.value.code == 81
    with pytest.raises(StatementError):
        driver.execute("SELCT 1", ())  # this server closes the link after it
    assert values(driver, "SELECT currentDatabase()") == [("system",)]


def test_an_interrupted_statement_ends_and_the_link_goes_on(driver: ClickhouseDriver) -> None:
    timer = threading.Timer(0.2, driver.interrupt)
    timer.start()
    with pytest.raises(StatementError) as caught:
        driver.execute("SELECT count() FROM system.numbers", ())
    timer.join()
    assert caught.value.code == 394
    assert values(driver, "SELECT 1") == [(1,)]


def test_rows_that_are_interrupted_are_not_taken_for_all(driver: ClickhouseDriver) -> None:
    rows = driver.query("SELECT number FROM system.numbers", ())
    driver.interrupt()
    with pytest.raises(StatementError):
        drain(rows)
    assert values(driver, "SELECT 1") == [(1,)]


def test_an_interrupt_with_nothing_to_stop_does_nothing(driver: ClickhouseDriver) -> None:
    driver.interrupt()
    assert values(driver, "SELECT 1") == [(1,)]


def test_an_aborted_call_ends_with_a_lost_link(driver: ClickhouseDriver) -> None:
    timer = threading.Timer(0.2, driver.abort)
    timer.start()
    with pytest.raises(ConnectionError):
        driver.execute("SELECT count() FROM system.numbers", ())
    timer.join()
    assert not driver.alive()


def test_transactions_are_refused(driver: ClickhouseDriver) -> None:
    for call in (driver.begin, driver.commit, driver.rollback):
        with pytest.raises(StatementError, match="no transactions"):
            call()
    assert not driver.in_transaction()


def test_a_closed_driver_says_so(driver: ClickhouseDriver) -> None:
    driver.close()
    driver.close()
    assert not driver.alive()
    driver.abort()
    driver.interrupt()
    with pytest.raises(ClosedError):
        driver.execute("SELECT 1", ())


def test_the_next_server_is_dialled_where_one_is_not_there(clickhouse: ClickHouse) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        driver = opened(f"clickhouse://u:p@127.0.0.1:{port},{clickhouse.address}/default")
        assert values(driver, "SELECT 1") == [(1,)]
        driver.close()


def test_a_deaf_server_is_given_up_by_the_deadline() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        driver = ClickhouseDriver(
            trunkline.parse_address(f"clickhouse://127.0.0.1:{deaf.getsockname()[1]}")
        )
        with pytest.raises(DialError, match="time allowed"):
            driver.open(Deadline(0.3))


@pytest.mark.parametrize("name", ["UTC", "America/New_York", "EST5EDT,M3.2.0,M11.1.0"])
def test_datetimes_do_not_depend_on_the_zone_of_this_machine(
    clickhouse: ClickHouse, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    moment = datetime(2026, 11, 1, 1, 30)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        driver = opened(f"clickhouse://u:p@{clickhouse.address}/default")
        driver.execute("CREATE TEMPORARY TABLE z (a DateTime, b Nullable(DateTime))", ())
        driver.executemany("INSERT INTO z VALUES", [[moment, moment]])
        [(zone,)] = values(driver, "SELECT timezone()")
        found = values(driver, "SELECT a, b, toUInt32(a), toUInt32(b) FROM z")
        seconds = moment.replace(tzinfo=ZoneInfo(zone)).timestamp()
        driver.close()
    time.tzset()
    assert found == [(moment, moment, seconds, seconds)]


def test_a_dict_alone_is_one_value(driver: ClickhouseDriver) -> None:
    with pytest.raises(StatementError) as caught:
        driver.execute("SELECT ?", {"a": 1})
    assert caught.value.code == 46  # this server has no function map()
    assert values(driver, "SELECT 1") == [(1,)]

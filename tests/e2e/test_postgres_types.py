"""postgres, values end to end: what is written comes back equal and of the same type."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trunkline
from tests.servers.postgres import Postgres
from tests.support.postgres_side import own_schema
from tests.support.statements import rows
from trunkline.errors import StatementError
from trunkline.proxy.connection import Connection
from trunkline.wire.documents import Json

MOODS = ("sad", "ok", 'very "happy", {really}', "\\", "NULL")
COLUMNS = {
    "small": "smallint",
    "whole": "integer",
    "big": "bigint",
    "huge": "numeric",
    "real": "double precision",
    "exact": "numeric",
    "yes": "boolean",
    "text": "text",
    "name": "varchar",
    "data": "bytea",
    "day": "date",
    "clock": "time",
    "zoned_clock": "timetz",
    "moment": "timestamp",
    "zoned": "timestamptz",
    "span": "interval",
    "id": "uuid",
    "document": "jsonb",
    "plain_json": "json",
    "mood": "mood",
    "numbers": "bigint[]",
    "nested": "integer[][]",
    "texts": "text[]",
    "bytes_list": "bytea[]",
    "ids": "uuid[]",
    "moods": "mood[]",
    "moments": "timestamptz[]",
    "exacts": "numeric[]",
    "spans": "interval[]",
    "truths": "boolean[]",
}

letters = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))
offsets = st.integers(-15 * 60 + 1, 15 * 60 - 1).map(
    lambda minutes: timezone(timedelta(minutes=minutes))
)
moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31))
zoned = st.builds(lambda moment, zone: moment.replace(tzinfo=zone), moments, st.just(UTC) | offsets)
spans = st.timedeltas(timedelta(days=-50_000_000), timedelta(days=50_000_000))
exact = st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(-exponent),
    st.integers(-(10**60), 10**60),
    st.integers(0, 25),
) | st.sampled_from([Decimal("Infinity"), Decimal("-Infinity")])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | letters,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(letters, inner, max_size=4),
    max_leaves=10,
)
documents = st.dictionaries(letters, json_values, max_size=4) | st.lists(
    st.dictionaries(letters, json_values, max_size=2), min_size=1, max_size=3
)


def lists(items: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.none() | items, max_size=5)


KINDS: dict[str, st.SearchStrategy[Any]] = {
    "small": st.integers(-(2**15), 2**15 - 1),
    "whole": st.integers(-(2**31), 2**31 - 1),
    "big": st.integers(-(2**63), 2**63 - 1),
    "huge": st.integers(-(10**200), 10**200),
    "real": st.floats(allow_nan=False),
    "exact": exact,
    "yes": st.booleans(),
    "text": letters,
    "name": letters,
    "data": st.binary(),
    "day": st.dates(),
    "clock": st.times(),
    "zoned_clock": st.builds(lambda clock, zone: clock.replace(tzinfo=zone), st.times(), offsets),
    "moment": moments,
    "zoned": zoned,
    "span": spans,
    "id": st.uuids(),
    "document": documents,
    "plain_json": documents,
    "mood": st.sampled_from(MOODS),
    "numbers": lists(st.integers(-(2**63), 2**63 - 1)),
    "nested": st.integers(0, 3).flatmap(
        lambda width: st.lists(
            st.lists(st.none() | st.integers(-99, 99), min_size=width, max_size=width),
            min_size=min(width, 1),
            max_size=3 if width else 0,
        )
    ),
    "texts": lists(letters),
    "bytes_list": lists(st.binary(max_size=9)),
    "ids": lists(st.uuids()),
    "moods": lists(st.sampled_from(MOODS)),
    "moments": lists(zoned),
    "exacts": lists(exact),
    "spans": lists(spans),
    "truths": lists(st.booleans()),
}


@pytest.fixture(scope="module")
def address(postgres: Postgres) -> Iterator[str]:
    with own_schema(postgres) as schema:
        yield f"postgres://u:p@{postgres.address}/postgres?search_path={schema}"


@pytest.fixture
def conn(address: str) -> Iterator[Connection]:
    with trunkline.connect(address, linger=0.2) as connection:
        yield connection


def make_table(conn: Connection) -> str:
    words = ", ".join("'{}'".format(mood.replace("'", "''")) for mood in MOODS)
    conn.exec("DROP TABLE IF EXISTS kinds; DROP TYPE IF EXISTS mood")
    conn.exec(f"CREATE TYPE mood AS ENUM ({words})")
    conn.exec(
        f"CREATE TABLE kinds ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})"
    )
    return "kinds"


def as_read(name: str, value: Any) -> Any:
    """`numeric` has one type for whole numbers and others."""
    return Decimal(value) if name == "huge" and value is not None else value


def same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, (datetime, time)) and wanted.tzinfo is not None:
        # the same moment; the server gives it in its session's zone
        return type(found) is type(wanted) and found == wanted and found.tzinfo is not None
    return (
        type(found) is type(wanted)
        and found == wanted
        and (found != 0 or str(found) == str(wanted))
    )


def test_every_column_has_a_strategy() -> None:
    assert set(KINDS) == set(COLUMNS)


def test_values_come_back_as_they_were_written(conn: Connection) -> None:
    table = make_table(conn)
    names = ", ".join(COLUMNS)
    insert = f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' for _ in COLUMNS)})"

    @given(
        st.lists(
            st.fixed_dictionaries({n: st.none() | kind for n, kind in KINDS.items()}), max_size=3
        )
    )
    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    def check(written: list[dict[str, Any]]) -> None:
        conn.exec(f"TRUNCATE {table}")
        given_rows = [[row[name] for name in COLUMNS] for row in written]
        for row in given_rows:
            conn.exec(insert, *row)
        conn.executemany(insert, given_rows)
        found = rows(conn, f"SELECT {names} FROM {table}")
        queried = list(conn.query(f"SELECT {names} FROM {table}") or [])
        assert len(found) == len(queried) == 2 * len(written)
        for read in (found, queried):
            for index, row in enumerate(read):
                for name, value in zip(COLUMNS, row, strict=True):
                    wanted = as_read(name, written[index % len(written)][name])
                    if name == "real" and wanted == 0:
                        assert value == 0
                        continue
                    assert same(value, wanted), (name, value, wanted)

    check()


@pytest.mark.parametrize(
    ("kind", "written", "read"),
    [
        ("double precision", math.inf, math.inf),
        ("numeric", 2**200, Decimal(2**200)),
        ("numeric", Decimal("1.10"), Decimal("1.10")),
        ("numeric", Decimal("1E+5"), Decimal("100000")),
        ("inet", ip_address("::1"), "::1"),
        ("inet", "10.0.0.1/8", "10.0.0.1/8"),
        ("cidr", ip_network("10.0.0.0/8"), "10.0.0.0/8"),
        ("inet[]", [ip_address("10.0.0.1")], ["10.0.0.1"]),
        ("int4range", "[1,5)", "[1,5)"),
        ("int4range[]", ["[1,5)", None], ["[1,5)", None]),
        ("tstzrange", "empty", "empty"),
        ("point", "(1,2)", "(1,2)"),
        ("macaddr[]", ["08:00:2b:01:02:03"], ["08:00:2b:01:02:03"]),
        ("money", "1.5", "$1.50"),
        ("pair", (1, "a b"), '(1,"a b")'),
        ("pair[]", ['(1,"a b")'], ['(1,"a b")']),
        ("jsonb", {"a": Decimal("1.5"), "b": date(2024, 1, 2)}, {"a": "1.5", "b": "2024-01-02"}),
        ("jsonb", [{"a": 1}, 2], [{"a": 1}, 2]),
        ("jsonb[]", ['{"a": 1}', None], [{"a": 1}, None]),
        ("jsonb", "[1, 2]", [1, 2]),
        ("json", '{"a": 1e400}', {"a": math.inf}),
        ("small_text[]", ["a"], ["a"]),
        ("positive[]", [1, 2], [1, 2]),
        ("positive", 1, 1),
        ("integer[]", [[None], [1]], [[None], [1]]),
        ("integer[]", [], []),
        ("integer[]", "[0:1]={7,8}", [7, 8]),
        ("char(3)", "a", "a  "),
        ("xml", "<a/>", "<a/>"),
        ("bit(3)", "101", "101"),
        # what Python has no value for is the server's text
        ("date", "infinity", "infinity"),
        ("date", "0044-03-15 BC", "0044-03-15 BC"),
        ("date", "10000-01-01", "10000-01-01"),
        ("timestamp", "-infinity", "-infinity"),
        ("timestamptz", "10000-01-01 00:00:00+00", "10000-01-01 00:00:00+00"),
        (
            "timestamp[]",
            ["infinity", "2024-01-02 03:04:05"],
            ["infinity", datetime(2024, 1, 2, 3, 4, 5)],
        ),
        ("time", "24:00", "24:00:00"),
        ("interval", "1 year 2 days", "1 year 2 days"),
        ("interval", "2 days -03:00:00.5", timedelta(days=2, hours=-3, seconds=-0.5)),
        ("interval", timedelta.max, timedelta.max),
        ("interval", timedelta(microseconds=-1), timedelta(microseconds=-1)),
        ("bytea", bytearray(b"\0\xff"), b"\0\xff"),
        ("timetz", time(1, 2, tzinfo=UTC), time(1, 2, tzinfo=UTC)),
        ("timestamptz", datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)),
        ("text", uuid.UUID(int=5), str(uuid.UUID(int=5))),
        ("uuid", str(uuid.UUID(int=5)), uuid.UUID(int=5)),
    ],
)
def test_a_value_is_read_as(address: str, kind: str, written: Any, read: Any) -> None:
    with trunkline.connect(f"{address}&tz=UTC", linger=0.2) as conn:
        conn.exec(
            "DROP TABLE IF EXISTS one; DROP TYPE IF EXISTS pair; DROP DOMAIN IF EXISTS small_text, positive"
        )
        conn.exec(
            "CREATE TYPE pair AS (a int, b text); CREATE DOMAIN positive AS int CHECK (VALUE > 0)"
        )
        conn.exec("CREATE DOMAIN small_text AS varchar(9)")
        conn.exec(f"CREATE TABLE one (v {kind})")
        conn.exec("INSERT INTO one VALUES (?)", written)
        for _ in range(2):  # a type of one's own is asked for once
            assert rows(conn, "SELECT v FROM one") == [[read]]
        assert type(rows(conn, "SELECT v FROM one")[0][0]) is type(read)


def test_nan_is_nan(conn: Connection) -> None:
    found = rows(
        conn, "SELECT ?::float8, ?::numeric, ?::numeric", math.nan, Decimal("NaN"), Decimal("sNaN")
    )
    assert all(value != value for value in found[0])
    assert [type(value) for value in found[0]] == [float, Decimal, Decimal]


def test_other_output_styles_do_not_lie(conn: Connection) -> None:
    conn.exec("SET intervalstyle = 'iso_8601'")
    conn.exec("SET bytea_output = 'escape'")
    assert rows(conn, "SELECT '1 day'::interval, ?", b"\0a\\\xff") == [["P1D", b"\0a\\\xff"]]


@pytest.mark.parametrize(
    ("kind", "value", "code"),
    [
        ("text", "a\0b", None),
        ("text", "\ud800", None),
        ("text[]", ["\udfff"], None),
        ("jsonb", {"a": "\ud800"}, None),
        ("smallint", 2**15, "22003"),
        ("bigint", 2**63, "22003"),
        ("varchar(2)", "abc", "22001"),
        ("uuid", "x", "22P02"),
        ("jsonb", {"a": math.nan}, None),
        ("date", "2024-02-31", "22008"),
        ("numeric(3,1)", 100, "22003"),
        ("integer[]", [1, "x"], "22P02"),
    ],
)
def test_a_value_that_the_column_cannot_hold_is_refused(
    conn: Connection, kind: str, value: Any, code: str | None
) -> None:
    conn.exec("DROP TABLE IF EXISTS narrow")
    conn.exec(f"CREATE TABLE narrow (v {kind})")
    for write in (
        lambda: conn.exec("INSERT INTO narrow VALUES (?)", value),
        lambda: conn.executemany("INSERT INTO narrow VALUES (?)", [[None], [value]]),
    ):
        with pytest.raises(StatementError) as caught:
            write()
        assert caught.value.code == code
    assert rows(conn, "SELECT count(*) FROM narrow") == [[0]]


MEANT = [
    # column, what is bound, what the server makes of it
    ("jsonb", [], "[]"),
    ("jsonb", [[]], "[[]]"),
    ("jsonb", [1], "[1]"),
    ("jsonb", ["a", None], '["a", null]'),
    ("jsonb", [{"p": 1}], '[{"p": 1}]'),
    ("jsonb", {}, "{}"),
    ("jsonb", {"a": [Decimal("1.10")]}, '{"a": ["1.10"]}'),
    ("jsonb", Json([]), "[]"),
    ("json", {}, "{}"),
    ("json", [], "[]"),
    ("document", [], "[]"),
    ("int[]", [], "{}"),
    ("int[]", [None, 1], "{NULL,1}"),
    ("int[]", [[1, 2], [3, None]], "{{1,2},{3,NULL}}"),
    ("text[]", [], "{}"),
    ("text[]", ['a"\\b', None, "NULL", ""], '{"a\\"\\\\b",NULL,"NULL",""}'),
    ("float8[]", [1.5, float("inf")], "{1.5,Infinity}"),
    ("bool[]", [True, None], "{t,NULL}"),
    ("bytea[]", [b"a"], '{"\\\\x61"}'),
    ("interval[]", [timedelta(days=1, seconds=2, microseconds=3)], '{"1 day 00:00:02.000003"}'),
    ("jsonb[]", [], "{}"),
    ("jsonb[]", [{"a": 1}, [1], None], '{"{\\"a\\": 1}",[1],NULL}'),
    ("couple", (1, 'a "b"'), '(1,"a ""b""")'),
    ("couple[]", [(1, "a"), (2, None)], '{"(1,a)","(2,)"}'),
]


def test_what_a_list_means_is_said_by_its_column(conn: Connection) -> None:
    conn.exec("CREATE DOMAIN document AS jsonb")
    conn.exec("CREATE TYPE couple AS (n int, t text)")
    for kind, value, text in MEANT:
        conn.exec("DROP TABLE IF EXISTS meant")
        conn.exec(f"CREATE TABLE meant (n int, v {kind})")
        conn.exec("INSERT INTO meant VALUES (?, ?)", 1, value)
        conn.exec("INSERT INTO meant (v) VALUES ($1)", (value,))
        conn.executemany("INSERT INTO meant VALUES (?, ?)", [(3, None), (4, value)])
        conn.executemany("UPDATE meant SET v = $2 WHERE n = $1", [(4, value)])
        with conn.transaction():
            conn.exec("INSERT INTO meant VALUES (?, ?)", 5, value)
            with pytest.raises(StatementError, match="stands where one value does"):
                conn.exec("SELECT 1 FROM meant WHERE n = ?", [value])
            conn.exec("UPDATE meant SET n = 6 WHERE n = 5")
        found = rows(conn, "SELECT v::text FROM meant WHERE v IS NOT NULL")
        assert found == [[text]] * 4, (kind, value)


def test_a_column_whose_type_was_changed_takes_the_list_as_its_new_type(
    conn: Connection, address: str
) -> None:
    conn.exec("CREATE TABLE turned (v int[])")
    conn.exec("INSERT INTO turned VALUES (?)", [])
    with trunkline.connect(address) as other:
        other.exec("ALTER TABLE turned ALTER COLUMN v TYPE jsonb USING '[1]'")
    conn.exec("INSERT INTO turned VALUES (?)", [])
    assert rows(conn, "SELECT v::text FROM turned") == [["[1]"], ["[]"]]


@pytest.mark.parametrize("many", [False, True])
def test_a_column_that_took_no_list_takes_one_when_another_program_has_changed_it(
    conn: Connection, address: str, many: bool
) -> None:
    table = f"took_none_{many}"

    def insert(values: list[int]) -> None:
        sql = f"INSERT INTO {table} VALUES (?)"
        conn.executemany(sql, [(values,), (values,)]) if many else conn.exec(sql, values)

    conn.exec(f"CREATE TABLE {table} (v text)")
    with pytest.raises(StatementError, match="stands where one value does"):
        insert([1])
    with trunkline.connect(address) as other:
        other.exec(f"ALTER TABLE {table} ALTER COLUMN v TYPE int[] USING NULL")
    insert([1])
    assert rows(conn, f"SELECT DISTINCT v FROM {table}") == [[[1]]]


def test_where_nothing_says_a_type_a_list_is_refused_or_its_cast_counts(conn: Connection) -> None:
    with pytest.raises(StatementError, match="stands where one value does"):
        conn.exec("SELECT ?", [1, 2])
    assert rows(conn, "SELECT ?::int[], ?::jsonb", [1, 2], [1, 2]) == [[[1, 2], [1, 2]]]
    assert rows(conn, "SELECT n FROM generate_series(1, 4) AS s(n) WHERE n = ANY(?)", [2, 4]) == [
        [2],
        [4],
    ]
    conn.exec("CREATE TABLE kept (v int[])")
    conn.exec(
        "CREATE PROCEDURE keep(given int[]) LANGUAGE sql AS $$ INSERT INTO kept VALUES (given) $$"
    )
    conn.exec("CALL keep(?::int[])", [1, 2])
    assert rows(conn, "SELECT v FROM kept") == [[[1, 2]]]

"""Values through a clickhouse connection and back: as docs/clickhouse.md says, for any value of each kind
that Debian's ClickHouse (18.16) has."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import trunkline
from tests.servers.clickhouse import ClickHouse
from tests.support.statements import rows
from trunkline.errors import StatementError
from trunkline.proxy.connection import Connection

TOKYO = ZoneInfo("Asia/Tokyo")
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
WORDS = ("red", "grün", "c'est, (bleu)")
FIRST, LAST = datetime(1970, 1, 1), datetime(2106, 2, 7, 6, 28, 15)
NOT_TEXT = st.binary(max_size=40).map(lambda data: data + b"\xff")


def whole(bits: int, signed: bool = True) -> st.SearchStrategy[int]:
    return (
        st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if signed
        else st.integers(0, 2**bits - 1)
    )


def decimals(digits: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**digits - 1
    return st.integers(-most, most).map(
        lambda n: Decimal((n < 0, Decimal(abs(n)).as_tuple().digits, -scale))
    )


# per column: its type, and what is written there
KINDS: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    **{f"i{bits}": (f"Int{bits}", whole(bits)) for bits in (8, 16, 32, 64)},
    **{f"u{bits}": (f"UInt{bits}", whole(bits, signed=False)) for bits in (8, 16, 32, 64)},
    "single": ("Float32", st.floats(width=32)),
    "number": ("Float64", st.floats()),
    "d9": ("Decimal(9, 4)", decimals(9, 4)),
    "d18": ("Decimal(18, 18)", decimals(18, 18)),
    "d38": ("Decimal(38, 10)", decimals(38, 10)),
    "words": ("String", TEXT),
    "raw": ("String", NOT_TEXT),
    "fixed": ("FixedString(4)", st.text("abcé", min_size=1, max_size=2)),
    "id": ("UUID", st.uuids()),
    "day": ("Date", st.dates(date(1970, 1, 1), date(2149, 6, 6))),
    "moment": (
        "DateTime",
        st.datetimes(FIRST, LAST).map(lambda value: value.replace(microsecond=0)),
    ),
    "zoned": (
        "DateTime('Asia/Tokyo')",
        st.datetimes(FIRST, LAST).map(
            lambda v: v.replace(microsecond=0, tzinfo=UTC).astimezone(TOKYO)
        ),
    ),
    "colour": (
        "Enum8({})".format(
            ", ".join(
                f"'{word.replace(chr(39), chr(92) + chr(39))}' = {n}"
                for n, word in enumerate(WORDS)
            )
        ),
        st.sampled_from(WORDS),
    ),
    "wide": ("Enum16('a' = -32768, 'b' = 32767)", st.sampled_from("ab")),
}
NULLABLE = {
    f"n_{name}": (f"Nullable({kind})", st.none() | found) for name, (kind, found) in KINDS.items()
}
NESTED: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "list": ("Array(Int64)", st.lists(whole(64), max_size=5)),
    "lists": (
        "Array(Array(Nullable(String)))",
        st.lists(st.lists(st.none() | TEXT, max_size=3), max_size=3),
    ),
    "days": ("Array(Date)", st.lists(KINDS["day"][1], max_size=3)),
    "pair": ("Tuple(Int8, String)", st.tuples(whole(8), TEXT)),
    "inner.a": ("Array(UInt8)", st.lists(whole(8, signed=False), min_size=2, max_size=2)),
    "inner.b": ("Array(String)", st.lists(TEXT, min_size=2, max_size=2)),
}
ALL = KINDS | NULLABLE | NESTED
ROW = st.fixed_dictionaries({name: found for name, (_, found) in ALL.items()})


@pytest.fixture
def db(clickhouse: ClickHouse) -> Iterator[Connection]:
    with trunkline.connect(
        f"clickhouse://u:p@{clickhouse.address}/default", linger=0.2
    ) as connection:
        yield connection


def alike(one: Any, other: Any) -> bool:
    """Equal, and of the same type, nan and the sign of 0 included."""
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    if isinstance(one, (list, tuple)) and type(one) is type(other):
        return len(one) == len(other) and all(map(alike, one, other))
    return type(one) is type(other) and one == other


def create(db: Connection) -> str:
    table = f"z{uuid.uuid4().hex[:12]}"
    columns = ", ".join(f"`{name}` {kind}" for name, (kind, _) in ALL.items())
    assert db.exec(f"CREATE TEMPORARY TABLE {table} ({columns})") is not None
    return table


def test_any_value_comes_back_as_it_was_written(db: Connection) -> None:
    places = ", ".join("?" * len(ALL))

    @settings(
        max_examples=12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(st.lists(ROW, min_size=1, max_size=4))
    def check(found: list[dict[str, Any]]) -> None:
        given_rows = [[row[name] for name in ALL] for row in found]
        for write in ways(given_rows):
            table = create(db)
            write(f"INSERT INTO {table} VALUES", places)
            got = rows(db, f"SELECT * FROM {table}")
            db.exec(f"DROP TABLE {table}")
            wrong = [
                (name, *pair)
                for one, other in zip(got, given_rows, strict=True)
                for name, *pair in zip(ALL, one, other, strict=True)
                if not alike(*pair)
            ]
            assert wrong == []

    def ways(found: list[list[Any]]) -> list[Callable[[str, str], Any]]:
        flat = [value for row in found for value in row]
        return [
            lambda sql, places: db.executemany(f"{sql} ({places})", found),
            lambda sql, places: db.exec(sql, found),
            lambda sql, places: db.exec(f"{sql} {', '.join([f'({places})'] * len(found))}", *flat),
        ]

    check()


# kind: what a bind of a SELECT comes back as
SCALARS = st.one_of(
    whole(64), whole(64, signed=False), st.floats(), TEXT, NOT_TEXT, decimals(38, 10), st.uuids(),
    KINDS["day"][1], KINDS["moment"][1], st.lists(whole(64), max_size=3), st.tuples(whole(8), TEXT),
)  # fmt: skip


def test_any_bind_of_a_select_comes_back_as_it_was_given(db: Connection) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(SCALARS)
    def check(value: Any) -> None:
        [[got]] = rows(db, "SELECT ? AS x", value)
        assert alike(got, value), (got, value)

    check()


def test_what_comes_back_as_something_else(db: Connection) -> None:
    """As the page says."""

    class Colour(Enum):
        RED = "red"

    for given_value, got in [
        (True, 1),
        (Colour.RED, "red"),
        (bytearray(b"text"), "text"),
        (timedelta(seconds=5), 5),
        (datetime(2020, 1, 1, 12, tzinfo=timezone(timedelta(hours=9))), datetime(2020, 1, 1, 3)),
    ]:
        assert rows(db, "SELECT ? AS x", given_value) == [[got]]


def test_binds_mean_the_same_where_they_are_compared(db: Connection) -> None:
    for value in (
        b"\xff'\\",
        "it's \\ ? %s $1 \0 é🎉",
        Decimal("0.29"),
        -(2**63),
        date(2149, 6, 6),
        (1, "a"),
    ):
        assert rows(db, "SELECT ? = ? AS x", value, value) == [[1]]
    assert rows(db, "SELECT 5 -? AS x, 2 IN ? AS y, 'b' IN ? AS z", -3, (1, 2), ("b",)) == [
        [8, 1, 1]
    ]
    assert rows(db, "SELECT $2 AS a, $1 AS b, $2 AS c", 1, "x") == [["x", 1, "x"]]


def test_a_value_cannot_become_sql(db: Connection) -> None:
    evil = [
        "'",
        "\\",
        "\\'",
        "'; DROP TABLE x; --",
        "')",
        "`",
        '"',
        "\x00'",
        "%(p1)s",
        "{a:String}",
        "\\x27",
        "\n--",
    ]
    for text in evil:
        assert rows(db, "SELECT ? AS x, 'after' AS y", text) == [[text, "after"]]
        assert rows(db, "SELECT ? AS x", [text, text + "'"]) == [[[text, text + "'"]]]


@pytest.mark.parametrize(
    "value",
    ["\ud800", 2**256, datetime(1500, 1, 1), Decimal("Infinity"), ["\udfff"]],
)
def test_a_value_that_it_does_not_have_is_refused_and_nothing_else_happens(
    db: Connection, value: Any
) -> None:
    with pytest.raises(StatementError):
        db.exec("SELECT ? AS x", value)
    assert rows(db, "SELECT 1") == [[1]]


def test_naive_datetimes_are_in_the_columns_zone_or_the_servers(db: Connection) -> None:
    table = f"z{uuid.uuid4().hex[:12]}"
    db.exec(f"CREATE TEMPORARY TABLE {table} (a DateTime, b DateTime('Asia/Tokyo'))")
    given_moment = datetime(2020, 1, 1, 12, 0, 0)
    db.exec(f"INSERT INTO {table} VALUES (?, ?)", given_moment, given_moment)
    [[zone]] = rows(db, "SELECT timezone()")
    [[plain, zoned, first, second]] = rows(
        db, f"SELECT a, b, toUInt32(a), toUInt32(b) FROM {table}"
    )
    assert (plain, zoned) == (given_moment, given_moment.replace(tzinfo=TOKYO))
    assert str(zoned.tzinfo) == "Asia/Tokyo"
    assert first == given_moment.replace(tzinfo=ZoneInfo(zone)).timestamp()
    assert second == given_moment.replace(tzinfo=TOKYO).timestamp()


def test_bytes_that_are_text_come_back_as_text(db: Connection) -> None:
    assert rows(db, "SELECT ? AS x, ? AS y, ? AS z", b"abc", b"\xff", "é".encode()) == [
        ["abc", b"\xff", "é"]
    ]

"""Every kind of value, written into SQLite and read back: equal, with its type, on each way in and out.

What SQLite has no type for is stored as docs/sqlite.md says; then that is what comes back.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trunkline
from tests.support.statements import rows
from trunkline.errors import StatementError
from trunkline.proxy.connection import Connection
from trunkline.wire.documents import Json


class Side(Enum):
    BUY = "buy"
    SELL = 2


class Level(IntEnum):
    HIGH = 9


class Kind(NamedTuple):
    declared: str
    values: st.SearchStrategy[Any]
    read: Callable[[Any], Any] = lambda value: value
    """What comes back."""


def _in_utc(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)


_ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text() | st.decimals() | st.dates() | st.uuids()
)  # fmt: skip
_NESTED = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
KINDS = {
    "integer of 64 bits": Kind("INTEGER", st.integers(-(1 << 63), (1 << 63) - 1)),
    "larger integer as text": Kind("TEXT", st.integers(min_value=1 << 63).map(str)),
    # a REAL column keeps whole numbers as integers, and those have no -0
    "float with inf": Kind("REAL", st.floats(allow_nan=False), lambda value: value + 0.0),
    "float in a column without a type": Kind("", st.floats(allow_nan=False)),
    "nan": Kind("REAL", st.just(math.nan), lambda value: None),
    "decimal": Kind("TEXT", st.decimals(), str),
    "text of all planes": Kind("TEXT", st.text()),
    "bytes": Kind("BLOB", st.binary()),
    "boolean": Kind("BOOLEAN", st.booleans()),
    "boolean in a number": Kind("INTEGER", st.booleans(), int),
    "none": Kind("TEXT", st.none()),
    "date": Kind("DATE", st.dates()),
    "datetime in UTC": Kind("DATETIME", _MOMENTS.map(lambda value: value.replace(tzinfo=UTC))),
    "datetime in another zone": Kind(
        "TIMESTAMP", st.builds(lambda value, zone: value.replace(tzinfo=zone), _MOMENTS, _ZONES)
    ),
    "datetime without a zone": Kind("TIMESTAMP", _MOMENTS, _in_utc),
    "datetime as text": Kind("TEXT", _MOMENTS, lambda value: value.isoformat(" ")),
    "time": Kind("TEXT", st.times(), lambda value: value.isoformat()),
    "interval": Kind("TEXT", st.timedeltas(), str),
    "uuid": Kind("TEXT", st.uuids(), str),
    "ip address": Kind("TEXT", st.ip_addresses(), str),
    "enum": Kind("", st.sampled_from(Side), lambda value: value.value),
    "integer enum": Kind("", st.sampled_from(Level), int),
    "list": Kind("TEXT", st.lists(_NESTED, max_size=4).map(Json), lambda value: value.text),
    "tuple": Kind(
        "TEXT", st.lists(_NESTED, max_size=4).map(tuple).map(Json), lambda value: value.text
    ),
    "dict": Kind(
        "TEXT", st.dictionaries(st.text(), _NESTED, max_size=4).map(Json), lambda value: value.text
    ),
}


@pytest.fixture
def conn() -> Iterator[Connection]:
    with trunkline.connect("sqlite3://:memory:") as connection:
        yield connection


@pytest.mark.parametrize("name", KINDS)
def test_a_value_comes_back_equal_and_with_its_type(conn: Connection, name: str) -> None:
    kind = KINDS[name]
    conn.exec(f"CREATE TABLE t (n INTEGER, value {kind.declared})")

    @settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(kind.values, min_size=1, max_size=5))
    def there_and_back(values: list[Any]) -> None:
        expected = [_with_type(kind.read(value)) for value in values]
        conn.exec("DELETE FROM t")
        for number, value in enumerate(values):
            conn.exec("INSERT INTO t VALUES (?, ?)", number, value)
        assert [
            _with_type(row[0]) for row in rows(conn, "SELECT value FROM t ORDER BY n")
        ] == expected
        conn.exec("DELETE FROM t")
        conn.executemany("INSERT INTO t VALUES (?, ?)", list(enumerate(values)))
        found = conn.query("SELECT value FROM t ORDER BY n")
        assert [_with_type(row[0]) for row in found or []] == expected
        conn.exec("DELETE FROM t")
        conn.executemany(
            "INSERT INTO t VALUES (:n, :value)",
            [{"n": n, "value": value} for n, value in enumerate(values)],
        )
        assert [
            _with_type(row[0]) for row in rows(conn, "SELECT value FROM t ORDER BY n")
        ] == expected

    there_and_back()


def _with_type(value: Any) -> tuple[Any, ...]:
    """`0.0 == -0.0`, `1 == True`, and moments are equal over zones: those are told apart here."""
    zone = value.utcoffset() if isinstance(value, datetime) else None
    return type(value), value, zone, math.copysign(1, value) if isinstance(value, float) else None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (1 << 63, "an integer of more than 64 bits does not fit SQLite; bind it as str"),
        (-(1 << 63) - 1, "an integer of more than 64 bits does not fit SQLite; bind it as str"),
        ("\ud83d", "half a surrogate pair; bind bytes"),
        ({1, 2}, "a set stands where one value does"),
        ([{1, 2}], "a list stands where one value does"),
        ([{(1, 2): 1}], "a list stands where one value does"),
    ],
    ids=ascii,
)
def test_a_value_that_sqlite_cannot_hold_is_refused_on_both_ways(
    conn: Connection, value: Any, says: str
) -> None:
    conn.exec("CREATE TABLE t (value)")
    with pytest.raises(StatementError, match=says):
        conn.exec("INSERT INTO t VALUES (?)", value)
    with pytest.raises(StatementError, match=f"^row 2: .*{says}"):
        conn.executemany("INSERT INTO t VALUES (?)", [(1,), (value,)])
    assert rows(conn, "SELECT count(*) FROM t") == [[0]]


def test_a_text_as_long_as_sqlite_allows_is_the_end(conn: Connection) -> None:
    conn.exec("CREATE TABLE t (value)")
    with pytest.raises(StatementError, match="string or blob too big") as caught:
        conn.exec("INSERT INTO t VALUES (zeroblob(2000000000))")
    assert caught.value.code == "SQLITE_TOOBIG"
    assert rows(conn, "SELECT count(*) FROM t") == [[0]]


LONG = Decimal("12345678901234567.89")


@pytest.mark.parametrize(
    "declared", ["DECIMAL(20, 2)", "NUMERIC", "REAL", "INTEGER", "money", "DATE"]
)
@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (NULL, ?, ?)",
        "INSERT INTO main.t (exact, n, amount) VALUES ('x', NULL, ?), (?, NULL, 0)",
        'INSERT OR REPLACE INTO "t" ([amount], `exact`) VALUES (?, ?)',
        "REPLACE INTO t (exact, amount) SELECT ?, ?",
        "INSERT INTO t (amount, exact) VALUES (coalesce(?, 0), ?) RETURNING n",
        "INSERT INTO t VALUES (1, 0, '') ON CONFLICT (n) DO UPDATE SET exact = ?, amount = ?",
        "UPDATE t SET exact = ?, amount = ? WHERE n = 1",
        "UPDATE t AS x SET (exact, amount) = (?, ?)",
        "WITH x AS (SELECT ? AS a, ? AS b) INSERT INTO t (exact, amount) SELECT a, b FROM x",
    ],
)
def test_a_decimal_that_a_column_would_round_is_refused(
    conn: Connection, declared: str, sql: str
) -> None:
    conn.exec(f"CREATE TABLE t (n INTEGER PRIMARY KEY, amount {declared}, exact TEXT)")
    conn.exec("INSERT INTO t VALUES (1, 0, 'before')")
    for write in (
        lambda: conn.exec(sql, LONG, LONG),
        lambda: conn.executemany(sql, [[Decimal("1.1"), "1"], [LONG, LONG]]),
    ):
        with pytest.raises(StatementError, match="amount is declared"):
            write()
    assert rows(conn, "SELECT amount + 0, exact FROM t") == [[0, "before"]]


@pytest.mark.parametrize("declared", ["TEXT", "VARCHAR(40)", "", "BLOB"])
def test_a_decimal_stays_exact_where_text_is_declared(conn: Connection, declared: str) -> None:
    conn.exec(f"CREATE TABLE t (n INTEGER PRIMARY KEY, amount {declared}, price DECIMAL(9, 2))")
    for text in ("12345678901234567.1000", "0.1234567890123456789", "-12345678901234567890123"):
        value = Decimal(text)
        conn.exec("INSERT INTO t (amount, price) VALUES (?, ?)", value, Decimal("1.10"))
        conn.executemany("INSERT INTO t (price, amount) VALUES (?, ?)", [[1, value], [2, 3]])
        conn.exec("UPDATE t SET amount = :a WHERE n > 0 AND price <> :p", {"a": value, "p": value})
        assert rows(conn, "SELECT DISTINCT amount FROM t") == [[text]]
        conn.exec("DELETE FROM t")


@pytest.mark.parametrize(
    ("declared", "value", "stored"),
    [
        ("DECIMAL(20, 2)", "1.10", 1.1),
        ("DECIMAL(20, 2)", "123456789012345", 123456789012345),
        ("NUMERIC", "9223372036854775807", 9223372036854775807),
        ("NUMERIC", "1.1000000000000000000000", 1.1),
        ("INTEGER", "-9223372036854775808", -9223372036854775808),
        ("REAL", "100000000000000000000000", 1e23),
        ("REAL", "9007199254740992", 9007199254740992.0),
        ("DECIMAL", "NaN", "NaN"),
    ],
)
def test_a_decimal_whose_digits_a_number_keeps_is_taken(
    conn: Connection, declared: str, value: str, stored: Any
) -> None:
    conn.exec(f"CREATE TABLE t (amount {declared})")
    conn.exec("INSERT INTO t VALUES (?)", Decimal(value))
    conn.executemany("INSERT INTO t VALUES (?)", [[Decimal(value)]])
    assert rows(conn, "SELECT amount FROM t") == [[stored]] * 2


def test_a_decimal_is_no_number_of_a_row(conn: Connection) -> None:
    conn.exec("CREATE TABLE t (a TEXT)")
    with pytest.raises(StatementError, match="rowid is declared INTEGER"):
        conn.exec("INSERT INTO t (rowid, a) VALUES (?, 'x')", LONG)


def test_any_of_a_strict_table_keeps_a_decimal(conn: Connection) -> None:
    conn.exec("CREATE TABLE t (amount ANY) STRICT")
    conn.exec("INSERT INTO t VALUES (?)", LONG)
    assert rows(conn, "SELECT amount FROM t") == [[str(LONG)]]
    conn.exec("CREATE TABLE u (amount ANY)")
    with pytest.raises(StatementError, match="amount is declared ANY"):
        conn.exec("INSERT INTO u VALUES (?)", LONG)


def test_json_can_be_queried_where_it_lies(conn: Connection) -> None:
    conn.exec("CREATE TABLE t (doc TEXT)")
    document = {"legs": [{"price": Decimal("1.10"), "id": UUID(int=7)}]}
    conn.exec("INSERT INTO t VALUES (:doc)", Json(document))
    assert rows(conn, "SELECT doc ->> '$.legs[0].price', doc ->> '$.legs[0].id' FROM t") == [
        ["1.10", str(UUID(int=7))]
    ]


def test_an_expression_over_a_column_has_no_declared_type(conn: Connection) -> None:
    """As in Go: only a column taken straight from a table does."""
    conn.exec("CREATE TABLE t (day DATE)")
    conn.exec("INSERT INTO t VALUES (?)", date(2024, 1, 31))
    assert rows(conn, "SELECT day, max(day) FROM t") == [[date(2024, 1, 31), "2024-01-31"]]


def test_another_program_reads_what_was_written(tmp_path: Any) -> None:
    moment = datetime(2024, 1, 31, 10, tzinfo=UTC)
    with trunkline.connect(f"sqlite3://{tmp_path}/t.db") as conn:
        conn.exec("CREATE TABLE t (a TIMESTAMP, b BOOLEAN)")
        conn.executemany("INSERT INTO t VALUES (?, ?)", [(moment, True)])
    with sqlite3.connect(tmp_path / "t.db") as plain:
        assert plain.execute("SELECT a, b FROM t").fetchall() == [("2024-01-31 10:00:00+00:00", 1)]
    plain.close()

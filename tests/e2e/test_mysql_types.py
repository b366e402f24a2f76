"""Values through a mysql connection and back: as docs/mysql.md says, for any value of each kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import ip_address
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trunkline
from tests.servers.mariadb import MariaDb
from tests.support.statements import rows
from trunkline.errors import StatementError
from trunkline.proxy.connection import Connection
from trunkline.wire.documents import Json

LONGEST = timedelta(hours=838, minutes=59, seconds=59)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
).filter(lambda value: isinstance(value, (list, dict)))
WORDS = ("red", "grün", "c'est bleu")
# per column: its type, and what is written there
KINDS: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "small": ("BIGINT", st.integers(-(2**63), 2**63 - 1)),
    "positive": ("BIGINT UNSIGNED", st.integers(0, 2**64 - 1)),
    "huge": ("DECIMAL(65, 0)", st.integers(-(10**65) + 1, 10**65 - 1)),
    "number": ("DOUBLE", st.floats(allow_nan=False, allow_infinity=False)),
    "exact": (
        "DECIMAL(65, 30)",
        st.integers(-(10**65) + 1, 10**65 - 1).map(
            lambda n: Decimal((n < 0, Decimal(n).as_tuple()[1], -30))
        ),
    ),
    "words": ("LONGTEXT CHARACTER SET utf8mb4", TEXT),
    "raw": ("LONGBLOB", st.binary(max_size=100)),
    "yes": ("BOOLEAN", st.booleans()),
    "day": ("DATE", st.dates()),
    "moment": ("DATETIME(6)", st.datetimes()),
    "span": ("TIME(6)", st.timedeltas(-LONGEST, LONGEST)),
    "colour": (f"ENUM({', '.join(map(repr, WORDS))})", st.sampled_from(WORDS)),
    "colours": (
        f"SET({', '.join(map(repr, WORDS))}) CHARACTER SET utf8mb4",
        st.sets(st.sampled_from(WORDS)),
    ),
    "bits": ("BIT(64)", st.integers(0, 2**64 - 1)),
    "year": ("YEAR", st.integers(1901, 2155)),
    "short": ("VARCHAR(100) CHARACTER SET utf8mb4", TEXT),
    "octets": ("VARBINARY(100)", st.binary(max_size=100)),
}
ROW = st.fixed_dictionaries({name: st.none() | values for name, (_, values) in KINDS.items()})


@pytest.fixture
def db(mariadb: MariaDb) -> Iterator[Connection]:
    with trunkline.connect(f"mysql://u:p@tcp({mariadb.address})/t", linger=0.2) as connection:
        yield connection


def same(got: list[Any], given: dict[str, Any]) -> None:
    """Equal, and of the type that the page says."""
    read = {"huge": Decimal, "yes": int}
    values = ((given[name], read.get(name)) for name in KINDS)
    expected = [value if value is None or kind is None else kind(value) for value, kind in values]
    assert got == expected
    assert [type(value) for value in got] == [type(value) for value in expected]


def bound(value: Any) -> Any:
    """The members of a SET column are bound as one text."""
    return ",".join(value) if isinstance(value, set) else value


def create(db: Connection, table: str) -> None:
    columns = ", ".join(f"`{name}` {kind} NULL" for name, (kind, _) in KINDS.items())
    db.exec(f"CREATE TEMPORARY TABLE {table} (n INT AUTO_INCREMENT PRIMARY KEY, {columns})")


def test_any_value_comes_back_as_it_was_written(db: Connection) -> None:
    create(db, "z")
    names, marks = ", ".join(f"`{name}`" for name in KINDS), ", ".join("?" * len(KINDS))

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(given_rows=st.lists(ROW, min_size=1, max_size=4))
    def check(given_rows: list[dict[str, Any]]) -> None:
        db.exec("DELETE FROM z")
        insert = f"INSERT INTO z ({names}) VALUES ({marks})"
        for row in given_rows:
            db.exec(insert, *(bound(row[name]) for name in KINDS))
        db.executemany(insert, [[bound(row[name]) for name in KINDS] for row in given_rows])
        found = rows(db, f"SELECT {names} FROM z ORDER BY n")
        assert len(found) == 2 * len(given_rows)
        for got, row in zip(found, given_rows * 2, strict=True):
            same(got, row)

    check()


def test_values_keep_their_type_without_a_column(db: Connection) -> None:
    given = [1, 2**64, 0.1, 1e300, 5.0, -0.0, Decimal("1.10"), "x", b"\0\xff", None, 10**64]
    found = rows(db, f"SELECT {', '.join('?' * len(given))}", *given)[0]
    expected = [*given]
    expected[1], expected[-1] = Decimal(2**64), Decimal(10**64)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=JSON)
def test_a_Json_is_a_document(db: Connection, value: Any) -> None:
    db.exec("CREATE OR REPLACE TEMPORARY TABLE j (doc JSON)")
    db.exec("INSERT INTO j VALUES (?)", Json(value))
    assert json.loads(rows(db, "SELECT doc FROM j")[0][0]) == value
    assert rows(db, "SELECT JSON_VALID(doc) FROM j") == [[1]]


class Side(Enum):
    BUY = "buy"


class Level(IntEnum):
    HIGH = 3


def test_other_types_are_stored_as_what_they_stand_for(db: Connection) -> None:
    uuid = UUID("12345678-1234-5678-1234-567812345678")
    db.exec(
        "CREATE TEMPORARY TABLE o (u UUID, c CHAR(36), i INET6, s VARCHAR(9), l INT, t TIME(6), g POINT)"
    )
    clock = time(1, 2, 3, 4)
    values = (uuid, uuid, ip_address("2001:db8::1"), Side.BUY, Level.HIGH, clock)
    db.exec("INSERT INTO o VALUES (?, ?, ?, ?, ?, ?, POINT(1, 2))", *values)
    span = timedelta(hours=1, minutes=2, seconds=3, microseconds=4)
    assert rows(db, "SELECT u, c, i, s, l, t FROM o WHERE u = ?", uuid) == [
        [str(uuid), str(uuid), "2001:db8::1", "buy", 3, span]
    ]
    assert type(rows(db, "SELECT g FROM o")[0][0]) is bytes


ZONES = (UTC, timezone(timedelta(hours=-3, minutes=-30)), ZoneInfo("Asia/Tokyo"))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    value=st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.sampled_from(ZONES))
)
def test_datetimes_with_a_zone_are_stored_as_utc(db: Connection, value: datetime) -> None:
    db.exec("CREATE OR REPLACE TEMPORARY TABLE m (at DATETIME(6))")
    db.exec("INSERT INTO m VALUES (?)", value)
    assert rows(db, "SELECT at FROM m") == [[value.astimezone(UTC).replace(tzinfo=None)]]


def test_loc_is_the_zone_of_datetimes_both_ways(mariadb: MariaDb) -> None:
    for loc, zone in (("UTC", UTC), ("Asia%2FTokyo", ZoneInfo("Asia/Tokyo")), ("Local", None)):
        with trunkline.connect(f"mysql://u:p@tcp({mariadb.address})/t?loc={loc}", linger=0.2) as db:
            db.exec("CREATE TEMPORARY TABLE m (at DATETIME(6))")
            moment = datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=UTC)
            db.exec("INSERT INTO m VALUES (?)", moment)
            (got,) = rows(db, "SELECT at FROM m")[0]
            assert got == moment
            assert got.utcoffset() == moment.astimezone(zone).utcoffset()
            stored = rows(db, "SELECT CAST(at AS CHAR) FROM m")[0][0]
            assert stored == moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S.%f")


@pytest.mark.parametrize(
    "value",
    ["half \ud800", float("nan"), float("-inf"), Decimal("NaN"), 10**70, time(1, tzinfo=UTC)],
)
def test_a_value_that_cannot_be_held_is_refused_and_the_connection_goes_on(
    db: Connection, value: object
) -> None:
    with pytest.raises(StatementError):
        db.exec("SELECT ?", value)
    with pytest.raises(StatementError):
        db.executemany("SELECT ?", [[1], [value]])
    assert rows(db, "SELECT ?", date(2024, 1, 2)) == [["2024-01-02"]]

"""Columns of ClickHouse that are read and written as numbers: as the library itself would do it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from io import BytesIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from clickhouse_driver.columns.base import Column as LibraryColumn
from clickhouse_driver.connection import ServerInfo
from clickhouse_driver.context import Context
from clickhouse_driver.streams import native
from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.drivers.clickhouse import columns as clickhouse_columns
from trunkline.actors.drivers.clickhouse.columns import Numbers, parted, use_numbers
from trunkline.actors.drivers.clickhouse.types import fitted, travelling
from trunkline.errors import StatementError
from trunkline.wire.table import Table, pack_rows, unpack_rows, unpack_table

ROWS = 10
"""Enough for rows to travel by columns."""
BERLIN = ZoneInfo("Europe/Berlin")


def context(zone: str = "UTC", **settings: Any) -> Context:
    found = Context()
    found.server_info = ServerInfo("x", 24, 1, 0, 54_000, zone, "x", 54_000)
    found.client_settings = {"use_numpy": False, "strings_as_bytes": False}
    found.settings = settings
    return found


def ours(zone: str = "UTC", **settings: Any) -> Context:
    found = context(zone, **settings)
    use_numbers(found)
    return found


def written(column: Sequence[Any], kind: str, to: Context) -> bytes:
    data = BytesIO()
    native.write_column(to, "c", kind, [*column], data)
    return data.getvalue()


def read(data: bytes, kind: str, of: Context, count: int) -> Any:
    return native.read_column(of, kind, count, BytesIO(data))


def arrived(data: bytes, kind: str, of: Context, count: int) -> list[Any]:
    """What a program gets of a column that the server sent."""
    column = read(data, kind, of, count)
    table = Table([travelling(kind, type(column) is Numbers)(column)], count)
    return [row[0] for row in unpack_rows(pack_rows(table))]


def shown(values: Sequence[Any]) -> list[tuple[type, str]]:
    return [(type(value), repr(value)) for value in values]


def sent(values: Sequence[Any]) -> Any:
    """Values as they reach the worker."""
    return unpack_table(pack_rows([[value] for value in values]))


LATE = datetime(2100, 1, 1)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "DateTime": st.datetimes(datetime(1970, 1, 1), LATE).map(
        lambda moment: moment.replace(microsecond=0)
    ),
    "DateTime64(0)": st.datetimes(datetime(1971, 1, 1), LATE).map(
        lambda m: m.replace(microsecond=0)
    ),
    "DateTime64(3)": st.datetimes(datetime(1971, 1, 1), LATE).map(
        lambda m: m.replace(microsecond=m.microsecond // 1000 * 1000)
    ),
    "DateTime64(6)": st.datetimes(datetime(1971, 1, 1), LATE),
    "Decimal(9, 0)": st.decimals(-(10**9) + 1, 10**9 - 1, places=0),
    "Decimal(18, 2)": st.decimals(-(10**16) + 1, 10**16 - 1, places=2),
    "Decimal(18, 18)": st.decimals("-0.999999999999999999", "0.999999999999999999", places=18),
}
COLUMNS = st.sampled_from(sorted(KINDS)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.lists(KINDS[kind], min_size=ROWS, max_size=ROWS))
)
GAPS = st.lists(st.booleans(), min_size=ROWS, max_size=ROWS)


def plain_and_nullable(
    kind: str, values: list[Any], gaps: list[bool]
) -> list[tuple[str, list[Any]]]:
    """The column, and as a Nullable one with these gaps."""
    gapped = [None if gap else value for gap, value in zip(gaps, values, strict=True)]
    return [(kind, values), (f"Nullable({kind})", gapped)]


@given(COLUMNS, GAPS)
def test_what_is_read_is_what_the_library_reads(
    column: tuple[str, list[Any]], gaps: list[bool]
) -> None:
    for name, given_values in plain_and_nullable(*column, gaps):
        data = written(given_values, name, context())
        assert type(read(data, name, ours(), ROWS)) is Numbers
        expected = read(data, name, context(), ROWS)
        assert shown(arrived(data, name, ours(), ROWS)) == shown(expected)


@given(COLUMNS, GAPS)
def test_what_is_written_is_what_the_library_writes(
    column: tuple[str, list[Any]], gaps: list[bool]
) -> None:
    for name, given_values in plain_and_nullable(*column, gaps):
        expected = written(given_values, name, context())
        for part in (sent(given_values), [[value] for value in given_values]):
            (found,) = fitted([part], [("c", name)], UTC)
            assert written(found, name, ours()) == expected


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("DateTime", [datetime(2024, 5, 1, tzinfo=timezone(timedelta(hours=9)))] * ROWS),
        ("DateTime", [datetime(2024, 5, 1, tzinfo=BERLIN)] * ROWS),
        ("DateTime('Asia/Tokyo')", [datetime(2024, 5, 1)] * ROWS),
        ("DateTime('Asia/Tokyo')", [datetime(2024, 5, 1, tzinfo=UTC)] * ROWS),
        ("DateTime64(3, 'Asia/Tokyo')", [datetime(2024, 5, 1)] * ROWS),
        ("DateTime64(3, 'UTC')", [datetime(2024, 5, 1)] * ROWS),
        ("DateTime64(3)", [datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 1)] * ROWS),
        (
            "DateTime64(3)",
            [datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=BERLIN)] * ROWS,
        ),
        ("DateTime64(6)", [datetime(2298, 5, 1)] * ROWS),
        (
            "Decimal(18, 2)",
            [Decimal("1E+5"), Decimal("-0.50"), Decimal("7"), Decimal("1.500")] * ROWS,
        ),
        ("Decimal(30, 2)", [Decimal("1.5")] * ROWS),
    ],
)
def test_what_needs_a_closer_look_is_written_rightly_too(kind: str, values: list[Any]) -> None:
    (found,) = fitted([sent(values)], [("c", kind)], UTC)
    assert written(found, kind, ours()) == written(values, kind, context())


@pytest.mark.parametrize("kind", ["DateTime", "Nullable(DateTime)", "DateTime64(3)"])
@pytest.mark.parametrize(
    "beside",
    [
        [],
        ["2026-01-01 00:00:00"],
        [datetime(2026, 1, 1, tzinfo=UTC)],
        [datetime(2026, 1, 1)] * ROWS,
    ],
)
@pytest.mark.parametrize("fold", [0, 1])
def test_the_hour_that_comes_twice_is_told_by_its_fold(
    kind: str, beside: list[Any], fold: int
) -> None:
    """Whatever else stands in the column, as it is for literals."""
    moment = datetime(2026, 10, 25, 2, 30, fold=fold)
    unit = 1000 if "64" in kind else 1
    for part in ([[each] for each in [moment, *beside]], sent([moment, *beside])):
        (found,) = fitted([part], [("c", kind)], BERLIN)
        assert found[0] == (1792888200 + 3600 * fold) * unit
    (found,) = fitted([[[[moment]]]], [("c", f"Array({kind})")], BERLIN)
    assert found == [[(1792888200 + 3600 * fold) * unit]]


def test_nine_digits_of_a_second() -> None:
    """The library counts these in floats."""
    moments = [datetime(2024, 5, 1, 0, 0, 0, number) for number in range(ROWS)]
    (found,) = fitted([sent(moments)], [("c", "DateTime64(9)")], UTC)
    start = int(moments[0].replace(tzinfo=UTC).timestamp()) * 10**9
    assert found == [start + number * 1000 for number in range(ROWS)]


@pytest.mark.parametrize(
    ("kind", "wrong", "reason"),
    [
        ("DateTime", datetime(2107, 1, 1), "1970-01-01"),
        ("DateTime", None, "not Nullable"),
        ("DateTime64(6)", datetime(1800, 1, 1), "1900"),
        ("Decimal(4, 2)", Decimal("100"), "4 digits"),
        ("Decimal(4, 2)", Decimal("-100"), "4 digits"),
        ("Decimal(4, 2)", Decimal("1.001"), "more than 2 digits"),
        ("Decimal(4, 2)", Decimal("NaN"), "does not fit"),
        ("Decimal(4, 2)", None, "not Nullable"),
        ("Int8", Decimal("1.5"), "a whole number is wanted"),
        ("UUID", datetime(2020, 1, 1), "a UUID is wanted"),
    ],
)
def test_one_value_that_does_not_fit_is_found(kind: str, wrong: Any, reason: str) -> None:
    good = (
        datetime(2020, 1, 1)
        if isinstance(wrong, datetime) or kind == "DateTime"
        else Decimal("1.25")
    )
    values: list[Any] = [good] * ROWS
    values[7] = wrong
    if kind in ("Int8", "UUID"):
        values = [wrong] * ROWS
    with pytest.raises(StatementError, match=reason):
        fitted([sent([good] * ROWS), sent(values)] if kind not in ("Int8", "UUID") else [sent(values)],
               [("c", kind)], UTC)  # fmt: skip


def test_the_row_is_counted_over_all_parts() -> None:
    parts = [
        sent([Decimal(1)] * ROWS),
        sent([*[Decimal(1)] * 3, Decimal("0.001"), *[Decimal(1)] * 6]),
    ]
    with pytest.raises(StatementError, match="row 14, column c"):
        fitted(parts, [("c", "Decimal(4, 2)")], UTC)
    with pytest.raises(StatementError, match="row 1 has 1 value, and the columns are 2: c, d"):
        fitted(parts, [("c", "Decimal(4, 2)"), ("d", "Int8")], UTC)


@pytest.mark.parametrize(
    ("kind", "of"),
    [
        ("DateTime", ours("Europe/Berlin")),
        ("DateTime", ours(use_client_time_zone=True)),
        ("DateTime", context()),
        ("DateTime('UTC')", ours()),
        ("DateTime64(9)", ours()),
        ("Decimal(30, 2)", ours()),
        ("Array(DateTime)", ours()),
        ("Int64", ours()),
    ],
)
def test_everything_else_is_read_by_the_library(kind: str, of: Context) -> None:
    values: list[Any] = [
        [datetime(2024, 7, 1)] if kind.startswith("Array") else datetime(2024, 7, 1)
    ] * 3
    if kind.startswith(("Decimal", "Int")):
        values = [Decimal(1) if kind.startswith("Decimal") else 1] * 3
    data = written(values, kind, of)
    found = read(data, kind, of, 3)
    assert type(found) is not Numbers
    assert len(found) == 3


def test_a_moment_that_python_does_not_have_is_an_error() -> None:
    travel = travelling("DateTime64(0)", numbers=True)
    with pytest.raises(ValueError, match="years"):
        travel((10**12,))


@pytest.mark.parametrize(
    "kind", ["Decimal(18, 2)", "Nullable(Decimal(18, 2))", "DateTime", "DateTime64(3)"]
)
def test_a_column_without_rows(kind: str) -> None:
    assert arrived(b"", kind, ours(), 0) == []
    assert fitted([], [("c", kind)], UTC) == [[]]


def test_types_are_parted() -> None:
    assert parted("Tuple(a Int8, Array(String))") == ("Tuple", ["a Int8", "Array(String)"])
    assert parted("DateTime64(3, 'UTC')") == ("DateTime64", ["3", "'UTC'"])
    assert parted("Int8") == ("Int8", [])


def test_the_names_of_the_library_that_we_stand_on_are_there() -> None:
    """Replaced in its streams, or set on its columns."""
    wanted = ["context", "column_spec", "n_items", "buf", "use_numpy", "has_custom_serialization"]
    assert [*inspect.signature(clickhouse_columns._library_reads).parameters] == wanted
    wanted = ["context", "column_name", "column_spec", "items", "buf", "types_check"]
    assert [*inspect.signature(clickhouse_columns._library_writes).parameters] == wanted
    assert native.read_column is clickhouse_columns._read
    assert native.write_column is clickhouse_columns._write
    assert LibraryColumn.after_read_items is LibraryColumn.before_write_items is None

"""Rows on the wire: whatever they hold, they come back the same, with their types."""

from __future__ import annotations

import math
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.wire import values
from trunkline.wire.table import pack_rows, unpack_rows

ZONES = st.sampled_from(
    [
        None,
        timezone.utc,  # noqa: UP017 (the type is what is meant)
        timezone(timedelta(hours=5, minutes=30)),
        timezone(timedelta(seconds=-3601, microseconds=-5)),
        timezone(timedelta(hours=1), "CET"),
        ZoneInfo("Europe/Berlin"),
    ]
)
MOMENTS = st.datetimes(timezones=ZONES, allow_imaginary=False)
KINDS = [
    st.integers(-(1 << 70), 1 << 70),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.booleans(),
    st.decimals(allow_nan=False),
    MOMENTS,
    st.datetimes(),
    st.dates(),
    st.times(),
    st.times(timezones=ZONES),
    st.timedeltas(),
    st.uuids(),
    st.lists(st.integers()),
]
COLUMN = st.one_of(
    [*KINDS, *(st.one_of(st.none(), kind) for kind in KINDS), st.one_of(KINDS), st.none()]
)


@st.composite
def tables(draw: st.DrawFn) -> list[list[Any]]:
    """Rows of which each column has a kind of its own, or some of it None, or a bit of everything."""
    columns = draw(
        st.lists(st.sampled_from([*KINDS, *(st.none() | kind for kind in KINDS)]), max_size=6)
    )
    count = draw(st.integers(0, 20))
    return [[draw(column) for column in columns] for _ in range(count)]


def _shown(rows: list[Any]) -> list[Any]:
    """With types and zones, for == says that True is 1 and that moments in two zones are the same."""
    return [[(type(value), repr(value)) for value in row] for row in rows]


@given(tables())
def test_rows_come_back_as_they_were(rows: list[list[Any]]) -> None:
    assert _shown(unpack_rows(pack_rows(rows))) == _shown(rows)


@given(tables())
def test_tuples_come_back_as_lists(rows: list[list[Any]]) -> None:
    assert _shown(unpack_rows(pack_rows([*map(tuple, rows)]))) == _shown(rows)


def test_a_decimal_that_is_no_number() -> None:
    rows = [
        [Decimal(text)]
        for text in ("NaN", "-Infinity", "0E+10", "-0.00", "1E-400", "sNaN12", "1", "2")
    ]
    assert [str(row[0]) for row in unpack_rows(pack_rows(rows))] == [str(row[0]) for row in rows]


def test_a_fold_and_the_ends_of_time_are_kept() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    for value in (
        datetime(2024, 10, 27, 2, 30, tzinfo=berlin, fold=1),
        datetime(2024, 10, 27, 2, 30, fold=1),
        datetime.min,
        datetime.max,
        time(2, 30, fold=1),
        date.min,
        date.max,
    ):
        found = unpack_rows(pack_rows([[value]] * 10))
        assert _shown(found) == _shown([[value]] * 10)
        assert all(getattr(row[0], "fold", 0) == getattr(value, "fold", 0) for row in found)


def test_subclasses_and_mixtures_go_the_long_way() -> None:
    class Price(Decimal):
        pass

    rows = [[Price("1.5"), 1 if n % 2 else Decimal(2)] for n in range(10)]
    found = unpack_rows(pack_rows(rows))
    assert [type(value) for value in found[0]] == [Decimal, Decimal]
    assert found == rows


def test_rows_of_different_lengths_and_mappings_stay_what_they_are() -> None:
    ragged: list[Any] = [[Decimal(1)] * n for n in range(10)]
    assert unpack_rows(pack_rows(ragged)) == ragged
    named: list[Any] = [{"a": Decimal(n), "b": date.min} for n in range(10)]
    assert unpack_rows(pack_rows(named)) == named


def test_nan_and_uuid_beside_a_decimal() -> None:
    rows = [[math.nan, UUID(int=n), Decimal(n)] for n in range(10)]
    found = unpack_rows(pack_rows(rows))
    assert all(math.isnan(row[0]) for row in found)
    assert [row[1:] for row in found] == [row[1:] for row in rows]


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        values.pack(7),
        values.pack([0, 7]),
        values.pack([2, []]),
        values.pack([1, [[9, [], []]]]),
        values.pack([1, [[1, [], ["x"]]]]),
        values.pack([1, [[2, [], [[None], [], [1 << 80]]]]]),
        values.pack([1, [[3, [], [0]]]]),
        values.pack([1, [[0, [], [1]], [0, [], []]]]),
    ],
)
def test_what_is_no_rows_is_refused(wrong: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        unpack_rows(wrong)


@pytest.mark.parametrize("scale", [-1, 77, 10**9])
def test_a_forged_scale_is_refused_at_once(scale: int) -> None:
    with pytest.raises(ValueError, match="malformed rows"):
        unpack_rows(values.pack([1, [[5, [], [scale, [1]]]], 1]))

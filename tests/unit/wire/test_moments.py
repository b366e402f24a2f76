"""Dates, times and zones as bytes."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.wire import moments

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [
    None,
    UTC,
    BERLIN,
    timezone(timedelta(hours=5, minutes=30)),
    timezone(-timedelta(hours=3), "BRT"),
]


@given(st.dates())
def test_dates(value: date) -> None:
    assert moments.unpack_date(moments.pack_date(value)) == value


@given(st.timedeltas())
def test_durations(value: timedelta) -> None:
    assert moments.unpack_timedelta(moments.pack_timedelta(value)) == value


@given(st.datetimes(), st.sampled_from(ZONES), st.sampled_from([0, 1]))
def test_moments_keep_zone_and_fold(value: datetime, zone: object, fold: int) -> None:
    sent = value.replace(tzinfo=zone, fold=fold)  # type: ignore[arg-type]
    came = moments.unpack_datetime(moments.pack_datetime(sent))
    assert (came.replace(tzinfo=None), came.fold, came.tzinfo) == (
        value.replace(fold=fold),
        fold,
        zone,
    )
    assert came.tzname() == sent.tzname()


@given(st.times(), st.sampled_from([None, UTC, ZONES[3], ZONES[4]]))
def test_times_of_day(value: time, zone: object) -> None:
    sent = value.replace(tzinfo=zone)  # type: ignore[arg-type]
    assert moments.unpack_time(moments.pack_time(sent)) == sent


def test_a_time_of_day_in_a_named_zone_keeps_the_zone() -> None:
    sent = time(12, 30, tzinfo=BERLIN)
    assert moments.unpack_time(moments.pack_time(sent)).tzinfo == BERLIN


def test_a_time_whose_offset_depends_on_the_date_is_refused() -> None:
    class Summer(tzinfo):
        def utcoffset(self, moment: datetime | None) -> timedelta | None:
            return timedelta(hours=1) if moment else None

    with pytest.raises(TypeError, match="use a ZoneInfo"):
        moments.pack_time(time(12, tzinfo=Summer()))


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x07\xe8\x01\x01\x00"])
def test_a_date_of_the_wrong_length_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="wrong length"):
        moments.unpack_date(data)


@pytest.mark.parametrize("zone", [b"x", b"o", b"o\x00"])
def test_a_zone_of_an_unknown_kind_is_refused(zone: bytes) -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        moments.unpack_time(moments.pack_time(time(1)) + zone)

"""Dates, times and their zones as bytes: the calendar part of `values`."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

__all__ = [
    "pack_date",
    "pack_datetime",
    "pack_time",
    "pack_timedelta",
    "unpack_date",
    "unpack_datetime",
    "unpack_time",
    "unpack_timedelta",
]

_DATE = struct.Struct(">HBB")
_TIME = struct.Struct(">BBBIB")
_DELTA = struct.Struct(">iii")
_OFFSET = struct.Struct(">q")
_MICROSECOND = timedelta(microseconds=1)


def pack_date(value: date) -> bytes:
    return _DATE.pack(value.year, value.month, value.day)


def unpack_date(data: bytes) -> date:
    return date(*_fields(_DATE, data))


def pack_datetime(value: datetime) -> bytes:
    return pack_date(value) + _pack_clock(value)


def unpack_datetime(data: bytes) -> datetime:
    return datetime.combine(unpack_date(data[: _DATE.size]), unpack_time(data[_DATE.size :]))


def pack_time(value: time) -> bytes:
    return _pack_clock(value)


def unpack_time(data: bytes) -> time:
    hour, minute, second, microsecond, fold = _fields(_TIME, data[: _TIME.size])
    return time(hour, minute, second, microsecond, _unpack_zone(data[_TIME.size :]), fold=fold)


def pack_timedelta(value: timedelta) -> bytes:
    return _DELTA.pack(value.days, value.seconds, value.microseconds)


def unpack_timedelta(data: bytes) -> timedelta:
    return timedelta(*_fields(_DELTA, data))


def _fields(layout: struct.Struct, data: bytes) -> tuple[int, ...]:
    """Unpack `data`. Raises ValueError where its length is wrong."""
    if len(data) != layout.size:
        raise ValueError("a date or time of the wrong length")
    return layout.unpack(data)


def _pack_clock(value: datetime | time) -> bytes:
    """Pack the time of day, its fold and its zone."""
    clock = _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    return clock + _pack_zone(value, value.tzinfo)


def _pack_zone(value: datetime | time, zone: tzinfo | None) -> bytes:
    """Pack the zone: b"" when naive, `u` for UTC, `z` and a key, or `o`, an offset and a name."""
    if zone is None:
        return b""
    if zone is UTC:
        return b"u"
    if isinstance(zone, ZoneInfo) and zone.key:
        return b"z" + zone.key.encode()
    offset = value.utcoffset()
    if offset is None:
        # a time of day, in a zone whose offset depends on the date
        raise TypeError(
            f"a time in {type(zone).__name__} cannot be sent to another process; use a ZoneInfo"
        )
    name = value.tzname()
    if not name or name == timezone(offset).tzname(None):
        name = ""  # the default name of such an offset
    return b"o" + _OFFSET.pack(offset // _MICROSECOND) + name.encode("utf-8", "surrogatepass")


def _unpack_zone(data: bytes) -> tzinfo | None:
    """Read a zone that `_pack_zone` has written. Raises ValueError for another form."""
    if data in (b"", b"u"):
        return UTC if data else None
    if data[:1] == b"z":
        return ZoneInfo(data[1:].decode())
    if data[:1] != b"o" or len(data) < 1 + _OFFSET.size:
        raise ValueError("a zone of an unknown kind")
    (microseconds,) = _OFFSET.unpack(data[1 : 1 + _OFFSET.size])
    name = data[1 + _OFFSET.size :].decode("utf-8", "surrogatepass")
    offset = timedelta(microseconds=microseconds)
    return timezone(offset, name) if name else timezone(offset)

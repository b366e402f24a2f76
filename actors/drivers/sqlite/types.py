"""Conversion of Python values for SQLite, and of columns declared as dates and booleans.

Reading follows go-sqlite3: the *declared* type of the column decides. Only a column taken
directly from a table has a declared type (`SELECT day`, not `SELECT max(day)`).
"""

from __future__ import annotations

import ipaddress
import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from trunkline.actors.database.binds import misplaced, of_day
from trunkline.actors.drivers.sqlite.decimals import written
from trunkline.errors import StatementError
from trunkline.wire.documents import Json

__all__ = ["exact", "in_zone", "register_adapters", "register_converters", "rounded", "to_sqlite"]

_INTEGER = re.compile(rb"-?\d+\Z")
_REAL = re.compile(rb"-?(?:\d+\.\d*(?:[eE][+-]?\d+)?|Inf)\Z")
_MOMENT = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[ T](?P<time>\d\d:\d\d(?::\d\d)?)(?P<fraction>\.\d{1,9})?(?P<zone>[+-]\d\d:\d\d(?::\d\d)?)?)?Z?",
    re.ASCII,
)
# The form that `to_sqlite` writes. Python reads this form five times as fast as `_MOMENT` does.
_WRITTEN = re.compile(rb"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{6})?(?:[+-]\d\d:\d\d)?")
_WRITTEN_DAY = re.compile(rb"\d{4}-\d\d-\d\d")
# Larger than any sensible number of seconds. go-sqlite3 takes such a number for milliseconds.
_MILLISECONDS = 10**12
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_sqlite(value: Any) -> Any:
    """A value in the form that SQLite can store.

    StatementError, with advice, for a value that SQLite cannot store.
    """
    if type(value) is int and not -(1 << 63) <= value < 1 << 63:
        raise StatementError("an integer of more than 64 bits does not fit SQLite; bind it as str")
    if value is None or type(value) in (int, float, str, bytes):
        return value
    for kind, convert in _STORED:
        if isinstance(value, kind):
            return convert(value)
    if isinstance(value, _CONTAINERS):
        raise misplaced(value)
    raise StatementError(
        f"SQLite cannot store a value of type {type(value).__name__}; bind it as str or bytes"
    )


# The order matters: a datetime is also a date.
_STORED: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (Enum, lambda value: to_sqlite(value.value)),
    (int, lambda value: to_sqlite(int.__int__(value))),
    (float, float.__float__),
    (str, str.__str__),
    ((bytes, bytearray, memoryview), bytes),
    (datetime, lambda value: value.isoformat(" ")),
    (date, lambda value: value.isoformat()),
    (time, lambda value: of_day(value).isoformat()),
    (Decimal, written),
    ((UUID, timedelta), str),
    ((ipaddress.IPv4Address, ipaddress.IPv6Address), str),
    (Json, lambda value: value.text),
)
_CONTAINERS = (list, tuple, set, frozenset, Mapping)


def register_adapters() -> None:
    """Have `sqlite3` itself store the values that `to_sqlite` converts, as far as adapters can.

    `sqlite3` looks for the exact type of a value.
    The adapters are registered for every connection of this process.
    """
    for kinds, convert in _STORED:
        for kind in kinds if isinstance(kinds, tuple) else (kinds,):
            if kind not in (Enum, int, float, str, bytes, bytearray, memoryview):
                sqlite3.register_adapter(kind, convert)


def register_converters() -> None:
    """Have `sqlite3` read declared dates and booleans by our rules.

    The converters apply to every connection of this process that asks for declared types, because
    the module offers no narrower scope. A worker has only one connection.
    """
    sqlite3.register_converter("DATE", _day)
    sqlite3.register_converter("DATETIME", _moment)
    sqlite3.register_converter("TIMESTAMP", _moment)
    sqlite3.register_converter("BOOLEAN", _boolean)


def _boolean(data: bytes) -> Any:
    if data in (b"0", b"1"):
        return data == b"1"
    return int(data) > 0 if _INTEGER.match(data) else _as_stored(data)


def _moment(data: bytes) -> Any:
    """A column declared as a moment: a datetime with a zone, or the stored value if it is none."""
    if _WRITTEN.fullmatch(data):
        try:
            value = datetime.fromisoformat(data.decode())
        except ValueError:
            # For example a 31st of February.
            return data.decode()
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if _INTEGER.match(data):
        return _from_number(int(data))
    match = _MOMENT.fullmatch(data.decode("utf-8", "replace"))
    try:
        return _from_text(match) if match else _as_stored(data)
    except ValueError:
        # For example a 31st of February.
        return _as_stored(data)


def _day(data: bytes) -> Any:
    """A column declared as a day: a date for a day alone, otherwise as `_moment`."""
    if not _WRITTEN_DAY.fullmatch(data):
        return _moment(data)
    try:
        return date.fromisoformat(data.decode())
    except ValueError:
        return data.decode()


def _from_number(number: int) -> datetime | int:
    """A number of seconds since 1970, or of milliseconds if it is very large, as a datetime."""
    unit = timedelta(milliseconds=1) if abs(number) > _MILLISECONDS else timedelta(seconds=1)
    try:
        return _EPOCH + number * unit
    except OverflowError:
        return number


def _from_text(match: re.Match[str]) -> datetime:
    """A datetime from the parts of its text. ValueError for a day or time that does not exist."""
    # Python has microseconds, Go has nanoseconds: finer digits are cut off.
    fraction = (match["fraction"] or "")[:7]
    value = datetime.fromisoformat(
        f"{match['date']} {match['time'] or '00:00'}{_seconds(match)}{fraction}"
    )
    zone = match["zone"]
    return value.replace(
        tzinfo=datetime.fromisoformat(f"2000-01-01 00:00{zone}").tzinfo if zone else UTC
    )


def _seconds(match: re.Match[str]) -> str:
    return "" if len(match["time"] or "") == len("00:00:00") else ":00"


def _as_stored(data: bytes) -> Any:
    """A value that is not a date or boolean, as it would be read without a declared type."""
    if _REAL.match(data):
        global _rounded
        _rounded += 1
        return float(data)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


_rounded = 0
"""How many REAL values this process has read as text."""


def rounded() -> int:
    """How many REAL values were read as text so far.

    The text has 15 digits, which may be too few.
    """
    return _rounded


def exact(rows: list[list[Any]], again: list[tuple[Any, ...]]) -> None:
    """Replace floats in `rows` by those that the statement returns without declared types.

    These floats have all their digits.
    """
    for row, plain in zip(rows, again, strict=False):
        for index, value in enumerate(plain):
            # The second run may have read other rows.
            # A float is replaced only by a float that rounds to the same number.
            if (
                type(value) is float
                and type(row[index]) is float
                and float(f"{value:.15g}") == row[index]
            ):
                row[index] = value


def in_zone(rows: list[list[Any]], zone: str) -> None:
    """Move every datetime of the rows into a zone.

    `zone`: the zone's name, or `Local` for this machine's zone.

    A datetime that would leave Python's range of years is not moved.
    """
    info = None if zone == "Local" else ZoneInfo(zone)
    for row in rows:
        for index, value in enumerate(row):
            if isinstance(value, datetime):
                with suppress(OverflowError):
                    row[index] = value.astimezone(info)

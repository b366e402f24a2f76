"""Python values as MySQL reads them in a statement, and columns of MySQL as Python values.

Writing goes by the type of the value. Reading goes by the type of the column: one converter for
each column, chosen once for each result.
"""

from __future__ import annotations

import array
import ipaddress
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any
from uuid import UUID

from mysql.connector.constants import FieldFlag, FieldType

from trunkline.actors.database.binds import misplaced
from trunkline.actors.drivers.mysql.plan import Charset
from trunkline.actors.drivers.mysql.zone import zone_of
from trunkline.errors import StatementError
from trunkline.wire.documents import Json

__all__ = ["Literal", "literals", "readers", "to_rows"]

MOST_DIGITS = 65
"""Digits of a DECIMAL. The server takes a longer number as a float."""
_BINARY = 63
"""The character set of columns that hold bytes, not text."""
_VECTOR = 242

Literal = Callable[[Any], bytes]
"""Writes a value. StatementError, with advice, for a value that MySQL cannot hold."""


# writing


def literals(
    charset: Charset, *, backslashes: bool, zone: tzinfo | None, truncate_us: int
) -> Literal:
    """A function that writes values.

    `backslashes`: backslashes escape in strings (sql_mode without NO_BACKSLASH_ESCAPES).
    `zone`: datetimes with a zone are written in this zone; None for this machine's zone.
    `truncate_us`: datetimes are cut to this many microseconds.
    """
    table: dict[type, Literal] = {
        int: _int,
        float: _float,
        bool: lambda value: b"1" if value else b"0",
        type(None): lambda value: b"NULL",
        str: partial(_str, charset, backslashes),
        bytes: partial(_bytes, charset, backslashes),
        Decimal: _decimal,
        datetime: partial(_datetime, zone, truncate_us),
        date: lambda value: b"'%s'" % value.isoformat().encode(),
        time: _time,
        timedelta: _timedelta,
        UUID: lambda value: b"'%s'" % str(value).encode(),
    }
    find = table.get

    def literal(value: Any) -> bytes:
        write = find(type(value))
        return write(value) if write is not None else other(value)

    def other(value: Any) -> bytes:
        for kind, convert in _OTHERS:
            if isinstance(value, kind):
                return literal(convert(value))
        if isinstance(value, _CONTAINERS):
            raise misplaced(value)
        raise StatementError(
            f"MySQL cannot store a value of type {type(value).__name__}; bind it as str or bytes"
        )

    return literal


def _int(value: int) -> bytes:
    """An integer. StatementError for more digits than a DECIMAL has."""
    if -(1 << 64) < value < 1 << 64:
        return b"%d" % value
    if abs(value) >= 10**MOST_DIGITS:
        raise StatementError(
            f"an integer of more than {MOST_DIGITS} digits does not fit MySQL; bind it as str"
        )
    return b"%d" % value


def _float(value: float) -> bytes:
    """A float, always with an exponent."""
    if not math.isfinite(value):
        raise StatementError(f"MySQL has no {value}; bind None, or the text")
    text = repr(value)
    # Without an exponent the number would be a DECIMAL.
    return (text if "e" in text else f"{text}e0").encode()


def _decimal(value: Decimal) -> bytes:
    """A Decimal, always with a point. StatementError for more digits than a DECIMAL has."""
    if not value.is_finite():
        raise StatementError(f"MySQL has no {value}; bind None, or the text")
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    if max(len(digits) + max(exponent, 0), -exponent) > MOST_DIGITS and value:
        raise StatementError(
            f"a Decimal of more than {MOST_DIGITS} digits does not fit MySQL; bind it as str, or round it"
        )
    text = f"{value:f}"
    # Without a point the number would be an integer.
    return (text if "." in text else f"{text}.").encode()


def _str(charset: Charset, backslashes: bool, value: str) -> bytes:
    """A text in quotes, or in hexadecimal where quotes and backslashes would not be safe."""
    try:
        # Text in ASCII alone is read the same in every character set that a session may have.
        # A `*/` is hidden, because a server that does not run `/*!99999 ? */` would end this
        # comment at the `*/` of a value.
        escaped = "'" in value or (backslashes and "\\" in value)
        if charset.hides_backslash or (escaped and not value.isascii()) or "*/" in value:
            return b"_%s X'%s'" % (
                charset.name.encode(),
                value.encode(charset.codec).hex().encode(),
            )
        if backslashes:
            value = value.replace("\\", "\\\\")
        return b"'" + value.replace("'", "''").encode(charset.codec) + b"'"
    except UnicodeEncodeError as error:
        bad = value[error.start]
    if "\ud800" <= bad <= "\udfff":
        raise StatementError(
            "MySQL stores no half of a surrogate pair, and this text has one; bind bytes"
        )
    raise StatementError(
        f"the connection's charset {charset.name} has no U+{ord(bad):04X}; use utf8mb4"
    )


def _bytes(charset: Charset, backslashes: bool, value: bytes) -> bytes:
    """Bytes in quotes, or in hexadecimal where quotes and backslashes would not be safe."""
    escaped = b"'" in value or (backslashes and b"\\" in value)
    if charset.hides_backslash or (escaped and not value.isascii()) or b"*/" in value:
        return b"_binary X'%s'" % value.hex().encode()
    if backslashes:
        value = value.replace(b"\\", b"\\\\")
    return b"_binary'" + value.replace(b"'", b"''") + b"'"


def _datetime(zone: tzinfo | None, truncate_us: int, value: datetime) -> bytes:
    """A datetime, moved into the zone and cut to the resolution that the address asks for."""
    if value.tzinfo is not None:
        try:
            value = value.astimezone(zone).replace(tzinfo=None)
        except OverflowError:
            raise StatementError(
                f"{value} has no counterpart in {zone or 'the local zone'}"
            ) from None
    if truncate_us > 1:
        whole = (value - datetime.min) // timedelta(microseconds=1)
        value -= timedelta(microseconds=whole % truncate_us)
    return b"'%s'" % value.isoformat(" ").encode()


def _time(value: time) -> bytes:
    if value.tzinfo is not None:
        raise StatementError(
            "MySQL has no time of day with a zone; bind a datetime, or the time without it"
        )
    return b"'%s'" % value.isoformat().encode()


def _timedelta(value: timedelta) -> bytes:
    """A timedelta as a TIME, which may be negative."""
    sign, value = ("-", -value) if value < timedelta(0) else ("", value)
    minutes, seconds = divmod(value.days * 86_400 + value.seconds, 60)
    text = f"{sign}{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
    return (
        f"'{text}.{value.microseconds:06}'".encode() if value.microseconds else f"'{text}'".encode()
    )


# The order matters: an IntEnum is also an int, a datetime is also a date.
_OTHERS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (Enum, lambda value: value.value),
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    ((bytes, bytearray, memoryview), bytes),
    (datetime, lambda value: datetime.fromisoformat(value.isoformat())),
    (date, lambda value: date.fromisoformat(value.isoformat())),
    (Json, lambda value: value.text),
    (
        tuple(
            getattr(ipaddress, f"IPv{version}{kind}")
            for version in (4, 6)
            for kind in ("Address", "Interface", "Network")
        ),
        str,
    ),
)
_CONTAINERS = (list, tuple, set, frozenset, Mapping)


# reading

_Reader = Callable[[tuple[Any, ...]], Sequence[Any]]


def readers(description: Sequence[Any], codec: str, loc: str | None) -> list[_Reader]:
    """A converter for each column of a result. `description` is the library's."""
    return [_reader(column[1], column[7], column[8], codec, loc) for column in description]


def to_rows(
    raw: Sequence[tuple[bytes | None, ...]], columns: Sequence[_Reader]
) -> list[tuple[Any, ...]]:
    """Rows of bytes as rows of values."""
    if not raw:
        return []
    typed = [read(values) for read, values in zip(columns, zip(*raw, strict=True), strict=True)]
    return list(zip(*typed))  # noqa: B905 - without columns there is nothing to compare


def _reader(kind: int, flags: int, charset: int, codec: str, loc: str | None) -> _Reader:
    """The converter of a column, by the type, flags and character set that the server told."""
    found = _BY_TYPE.get(kind)
    if found is not None:
        return partial(_converted, *found)
    if kind in (FieldType.DATETIME, FieldType.TIMESTAMP):
        return partial(_converted, _moment(loc), _text)
    decode: Callable[[bytes], str] = bytes.decode if codec == "utf-8" else partial(_decoded, codec)
    if kind == FieldType.GEOMETRY or (charset == _BINARY and kind != FieldType.JSON):
        return _as_it_is
    if flags & FieldFlag.SET:
        return partial(
            _converted,
            lambda value: set(decode(value).split(",")) if value != b"" else set(),
            _same,
        )
    if kind == FieldType.JSON:
        return partial(_converted, json.loads, _text)
    return partial(_converted, decode, _same)


def _as_it_is(values: tuple[Any, ...]) -> Sequence[Any]:
    return values


def _converted(
    convert: Callable[[bytes], Any],
    otherwise: Callable[[bytes], Any],
    values: tuple[bytes | None, ...],
) -> Sequence[Any]:
    """All values by `convert`; NULL as None; a value that `convert` cannot read by `otherwise`."""
    try:
        return list(map(convert, values))  # type: ignore[arg-type]
    except (TypeError, AttributeError, ValueError):
        return [None if value is None else _either(convert, otherwise, value) for value in values]


def _either(
    convert: Callable[[bytes], Any], otherwise: Callable[[bytes], Any], value: bytes
) -> Any:
    """One value by `convert`, or by `otherwise` if `convert` cannot read the value."""
    try:
        return convert(value)
    except ValueError:
        # For example 0000-00-00, or text that is not in its character set.
        return otherwise(value)


def _same(value: bytes) -> bytes:
    return value


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _decoded(codec: str, value: bytes) -> str:
    return value.decode(codec)


def _moment(loc: str | None) -> Callable[[bytes], datetime]:
    """The converter of moments. `loc`: see `Plan.loc`."""
    read = datetime.fromisoformat
    if loc is None:
        return lambda value: read(value.decode())
    if loc == "Local":
        return lambda value: read(value.decode()).astimezone()
    zone = zone_of(loc)
    return lambda value: read(value.decode()).replace(tzinfo=zone)


def _duration(value: bytes) -> timedelta:
    """A TIME, which may be negative and longer than a day."""
    hours, minutes, rest = value.decode().lstrip("-").split(":")
    seconds, _, fraction = rest.partition(".")
    found = timedelta(
        hours=int(hours),
        minutes=int(minutes),
        seconds=int(seconds),
        microseconds=int(fraction.ljust(6, "0")[:6]),
    )
    return -found if value.startswith(b"-") else found


def _bits(value: bytes) -> int:
    """A BIT value, which the server sends as bytes."""
    return int.from_bytes(value, "big")


_INTS = ("TINY", "SHORT", "INT24", "LONG", "LONGLONG", "YEAR")
_BY_TYPE: dict[int, tuple[Callable[[bytes], Any], Callable[[bytes], Any]]] = {
    **{getattr(FieldType, name): (int, _text) for name in _INTS},
    FieldType.FLOAT: (float, _text),
    FieldType.DOUBLE: (float, _text),
    FieldType.DECIMAL: (lambda value: Decimal(value.decode()), _text),
    FieldType.NEWDECIMAL: (lambda value: Decimal(value.decode()), _text),
    FieldType.DATE: (lambda value: date.fromisoformat(value.decode()), _text),
    FieldType.NEWDATE: (lambda value: date.fromisoformat(value.decode()), _text),
    FieldType.TIME: (_duration, _text),
    FieldType.BIT: (_bits, _same),
    _VECTOR: (lambda value: list(array.array("f", value)), _same),
}

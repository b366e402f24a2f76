"""Python values as SQL for ClickHouse, and literals of an `INSERT ...

VALUES` as Python values.

clickhouse-driver could write values into the text, but with faults. It drops fractions of a
second, writes bytes in Python's notation, and writes numbers so that `5 -?` becomes a comment.
The literals of this module keep their meaning and type at any place in a text.
"""

from __future__ import annotations

import ipaddress
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from trunkline.actors.database.binds import misplaced, of_day
from trunkline.errors import StatementError
from trunkline.wire.documents import Json

__all__ = ["EPOCH", "literal", "unescaped"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The range of Date.
_FIRST_DAY, _LAST_DAY = date(1970, 1, 1), date(2149, 6, 6)
_ESCAPES = {
    "b": "\b",
    "f": "\f",
    "r": "\r",
    "n": "\n",
    "t": "\t",
    "0": "\0",
    "a": "\a",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
    "`": "`",
}
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|.)", re.DOTALL)
_SMALLEST = 2.2250738585072014e-308
"""The smallest float with all its digits. ClickHouse's parser accepts no smaller one."""


def literal(value: Any, zone: tzinfo) -> str:
    """The value as SQL. `zone`: the server's zone, for datetimes without a zone."""
    try:
        return _literal(value, zone)
    except RecursionError:
        raise StatementError("this list is nested too deep for ClickHouse") from None


def _literal(value: Any, zone: tzinfo) -> str:
    """See `literal`. Calls itself for the items of lists, tuples and maps."""
    if value is None:
        return "NULL"
    for kind, write in _WRITERS:
        if isinstance(value, kind):
            return write(value, zone)
    if isinstance(value, (set, frozenset)):
        raise misplaced(value)
    raise StatementError(
        f"ClickHouse has no value of type {type(value).__name__}; bind it as str, bytes or a number"
    )


def _int(value: int, zone: tzinfo) -> str:
    """An integer of up to 256 bits. Large ones name their type."""
    number = int.__int__(value)
    if -(1 << 63) <= number < 1 << 64:
        # In parentheses, because `5 -?` would begin a comment.
        return f"({number})" if number < 0 else str(number)
    for bits in (128, 256):
        if -(1 << bits - 1) <= number < 1 << bits - 1:
            return f"toInt{bits}('{number}')"
        if 0 <= number < 1 << bits:
            return f"toUInt{bits}('{number}')"
    raise StatementError("an integer of more than 256 bits does not fit ClickHouse; bind it as str")


def _float(value: float, zone: tzinfo) -> str:
    """A float. Tiny floats, which the parser does not accept, are written by their bytes."""
    number = float.__float__(value)
    if 0 < abs(number) < _SMALLEST:
        return f"reinterpretAsFloat64(unhex('{struct.pack('<d', number).hex()}'))"
    text = repr(number)
    return f"({text})" if math.copysign(1, number) < 0 and not math.isnan(number) else text


def _decimal(value: Decimal, zone: tzinfo) -> str:
    """A Decimal with its own scale, in the smallest type that holds all digits."""
    if not value.is_finite():
        raise StatementError(
            "a Decimal that is no finite number does not fit ClickHouse; bind it as float"
        )
    text = format(value, "f")
    scale = len(text.partition(".")[2])
    digits = max(len(text.lstrip("-").replace(".", "").lstrip("0")), scale)
    for most, bits in ((18, 64), (38, 128), (76, 256)):
        if digits <= most:
            return f"toDecimal{bits}('{text}', {scale})"
    raise StatementError("a Decimal of more than 76 digits does not fit ClickHouse; bind it as str")


def _str(value: str, zone: tzinfo) -> str:
    """A text in quotes."""
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise StatementError(_SURROGATE) from None
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\0", "\\0") + "'"


_SURROGATE = "ClickHouse's text is UTF-8, and this one has half a surrogate pair; bind bytes"


def _datetime(value: datetime, zone: tzinfo) -> str:
    """A datetime as DateTime.

    As DateTime64 if the datetime has a fraction or is out of the range of DateTime.
    """
    micros = (value if value.tzinfo else value.replace(tzinfo=zone)) - EPOCH
    seconds, rest = divmod(micros // timedelta(microseconds=1), 1_000_000)
    if rest == 0 and 0 <= seconds < 1 << 32:
        return f"toDateTime({seconds})"
    if not 1900 <= value.year <= 2299:
        raise StatementError(
            f"ClickHouse has no time in the year {value.year}: it has 1900 to 2299"
        )
    text = (EPOCH + micros).replace(tzinfo=None).isoformat(" ", "microseconds")
    return f"toDateTime64('{text}', 6, 'UTC')"


def _date(value: date, zone: tzinfo) -> str:
    """A date as Date, or as Date32 if it is out of the range of Date."""
    if _FIRST_DAY <= value <= _LAST_DAY:
        return f"toDate({(value - _FIRST_DAY).days})"
    if not 1900 <= value.year <= 2299:
        raise StatementError(f"ClickHouse has no day in the year {value.year}: it has 1900 to 2299")
    return f"toDate32('{value.isoformat()}')"


def _interval(value: timedelta, zone: tzinfo) -> str:
    """A timedelta as an interval of seconds or microseconds."""
    seconds, rest = divmod(value, timedelta(seconds=1))
    if rest:
        return f"toIntervalMicrosecond({value // timedelta(microseconds=1)})"
    return f"toIntervalSecond({seconds})"


def _list(value: Sequence[Any], zone: tzinfo) -> str:
    """A list as an array."""
    if (
        set(map(type, value)) == {int}
        and -(1 << 63) <= min(value) < 0
        and 1 << 31 < max(value) < 1 << 63
    ):
        # A negative number and a number that ClickHouse takes for UInt64 have no common type.
        return "[" + ", ".join([f"toInt64({item})" for item in value]) + "]"
    return "[" + ", ".join([_literal(item, zone) for item in value]) + "]"


def _tuple(value: Sequence[Any], zone: tzinfo) -> str:
    """A tuple."""
    if not value:
        raise StatementError(
            "ClickHouse has no empty tuple here; bind a list, or leave the condition out"
        )
    inside = ", ".join([_literal(item, zone) for item in value])
    return f"({inside})" if len(value) > 1 else f"tuple({inside})"


def _map(value: Mapping[Any, Any], zone: tzinfo) -> str:
    return (
        "map(" + ", ".join([_literal(item, zone) for pair in value.items() for item in pair]) + ")"
    )


# The order matters: a bool is also an int, a datetime is also a date.
_WRITERS: tuple[tuple[Any, Callable[[Any, tzinfo], str]], ...] = (
    (Enum, lambda value, zone: _literal(value.value, zone)),
    (bool, lambda value, zone: "1" if value else "0"),
    (int, _int),
    (float, _float),
    (str, _str),
    ((bytes, bytearray, memoryview), lambda value, zone: f"unhex('{bytes(value).hex()}')"),
    (Decimal, _decimal),
    (datetime, _datetime),
    (date, _date),
    (time, lambda value, zone: f"'{of_day(value).isoformat()}'"),
    (timedelta, _interval),
    (UUID, lambda value, zone: f"toUUID('{value}')"),
    (ipaddress.IPv4Address, lambda value, zone: f"toIPv4('{value}')"),
    (ipaddress.IPv6Address, lambda value, zone: f"toIPv6('{value}')"),
    (list, _list),
    (tuple, _tuple),
    (Mapping, _map),
    (Json, lambda value, zone: _str(value.text, zone)),
)


def unescaped(quoted: str) -> str | bytes | None:
    """The value of a string in single quotes; None if only the server knows its meaning."""
    inside = quoted[1:-1]
    if len(quoted) < 2 or not quoted.endswith("'"):
        return None
    if "\\" not in inside:
        return inside
    if any(found[1][0] != "x" and found[1] not in _ESCAPES for found in _ESCAPE.finditer(inside)):
        return None
    data = bytearray()
    position = 0
    for found in _ESCAPE.finditer(inside):
        data += inside[position : found.start()].encode("utf-8", "surrogatepass")
        letter = found[1]
        data += bytes.fromhex(letter[1:]) if letter[0] == "x" else _ESCAPES[letter].encode()
        position = found.end()
    data += inside[position:].encode("utf-8", "surrogatepass")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return bytes(data)

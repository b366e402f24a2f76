"""Moments and Decimals of ClickHouse as whole numbers, in both directions.

The server itself uses this form.

clickhouse-driver makes an object of each value, one by one in Python. The worker
would take each object apart again to send it to the program. That takes most of
the time of a large result or INSERT. So columns of these types are read and
written as numbers: `DateTime`, `DateTime64`, `Decimal` of up to 18 digits, also
as Nullable. Inside of arrays and tuples these types are left to the library.

The module relies on names of the library: `read_column` and `write_column` of its streams, and
`after_read_items` and `before_write_items` of a column. A unit test fails if these names change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import repeat
from operator import floordiv, sub
from typing import Any

from clickhouse_driver.columns.service import get_column_by_spec
from clickhouse_driver.streams import native

from trunkline.wire.table import DECIMALS, MOMENTS, Column, moments, scaled_decimals

__all__ = ["Numbers", "as_numbers", "decimal_of", "is_utc", "numbers_of", "parted", "use_numbers"]

_SECOND = 1_000_000
_DIGITS = 18
"""Digits of a Decimal that fits into 64 bits."""
# Names of zones whose clock is always UTC.
_ZONES = frozenset(
    ("utc", "etc/utc", "uct", "etc/uct", "gmt", "etc/gmt", "zulu", "etc/zulu", "universal")
)
_START = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
# The years 1 to 9999, in microseconds since 1970.
_FIRST, _LAST = ((end - _START) // _MICROSECOND for end in (datetime.min, datetime.max))


def parted(kind: str) -> tuple[str, list[str]]:
    """A type such as `Tuple(a Int8, String)` as `Tuple` and its arguments."""
    name, bracket, inside = kind.strip().partition("(")
    if not bracket:
        return name, []
    arguments, depth, quote, start = [], 0, False, 0
    inside = inside.rstrip()[:-1]
    for index, letter in enumerate(inside):
        quote ^= letter == "'" and inside[index - 1 : index] != "\\"
        depth += 0 if quote else (letter == "(") - (letter == ")")
        if letter == "," and not depth and not quote:
            arguments.append(inside[start:index].strip())
            start = index + 1
    return name, [*arguments, inside[start:].strip()]


def is_utc(zone: tzinfo | str) -> bool:
    """Whether the clock of a zone is always UTC, by the name of the zone."""
    return zone is UTC or str(zone).lower() in _ZONES


# From the server.

Travel = Callable[[Iterable[int], list[int]], Column]


def as_numbers(kind: str, utc: bool) -> Travel | None:
    """The function that packs the numbers of a column of this type, given the places of None.

    None if such a column comes as values.

    `utc`: a moment whose type names no zone is in UTC.
    """
    scale = _ticks(kind) if utc else None
    if scale is not None:
        unit: int = 10 ** (6 - scale)
        return lambda numbers, gaps: _moments(numbers, unit, gaps)
    digits = decimal_of(kind)
    if digits is not None:
        places = digits[1]
        return lambda numbers, gaps: scaled_decimals(numbers, places, gaps)
    return None


def _moments(numbers: Iterable[int], unit: int, gaps: list[int]) -> Column:
    """Moments as a column.

    ValueError for a moment outside of the years 1 to 9999. `unit`: microseconds of one tick.
    """
    column = moments(numbers, unit, gaps)
    passed = column.content[-1]
    if passed and not _FIRST <= min(passed) <= max(passed) <= _LAST:
        raise ValueError("a moment is not between the years 1 and 9999")
    return column


@lru_cache(1024)
def _ticks(kind: str) -> int | None:
    """The digits after the second, for moments whose type names no zone. None for other types."""
    name, arguments = _inner(kind)
    if name == "DateTime" and not arguments:
        return 0
    if name == "DateTime64" and len(arguments) == 1 and int(arguments[0]) <= 6:
        return int(arguments[0])
    return None


@lru_cache(1024)
def decimal_of(kind: str) -> tuple[int, int] | None:
    """Precision and scale of a Decimal that fits into 64 bits. None for other types."""
    name, arguments = _inner(kind)
    if name == "Decimal" and len(arguments) == 2 and int(arguments[0]) <= _DIGITS:
        return int(arguments[0]), int(arguments[1])
    return None


def _inner(kind: str) -> tuple[str, list[str]]:
    """Name and arguments of a type, without Nullable."""
    name, arguments = parted(kind)
    return parted(arguments[0]) if name == "Nullable" else (name, arguments)


# To the server.


def numbers_of(kind: str, column: Column, zone: tzinfo) -> list[int] | None:
    """The values of a packed column as numbers for this type of the server.

    Values that are None are left out.

    None if each value needs a closer look.

    `zone`: for moments without a zone, if the type names none.
    """
    name, arguments = _inner(kind)
    if column.codec == DECIMALS and (digits := decimal_of(kind)) is not None:
        return _scaled(column.content, *digits)
    if column.codec == MOMENTS and name in ("DateTime", "DateTime64"):
        named = arguments and arguments[-1].startswith("'")
        passed = _utc(column.content, arguments[-1].strip("'") if named else zone)
        if passed is not None:
            return _seconds(passed) if name == "DateTime" else _fractions(passed, int(arguments[0]))
    return None


def _scaled(texts: Sequence[str], precision: int, scale: int) -> list[int] | None:
    """Decimals as whole numbers of the column's scale.

    None if a text is not a plain number that fits.
    """
    zeros = ["0" * missing for missing in range(scale, -1, -1)]
    try:
        numbers = [
            int(whole + fraction + zeros[len(fraction)])
            for whole, _, fraction in map(str.partition, texts, repeat("."))
        ]
    except (ValueError, IndexError):
        # An exponent, too many digits, or not a number.
        return None
    most = 10**precision
    return numbers if not numbers or -most < min(numbers) <= max(numbers) < most else None


def _utc(content: Any, zone: tzinfo | str) -> list[int] | None:
    """The moments as microseconds since 1970 in UTC.

    None unless all moments have the same offset.
    """
    offsets, which, passed = content
    if which or (offsets[0] is None and not is_utc(zone)):
        return None
    return [*map(sub, passed, repeat(offsets[0]))] if offsets[0] else passed


def _seconds(passed: Sequence[int]) -> list[int] | None:
    """Microseconds as seconds; None if a moment is outside of the range of DateTime."""
    if passed and not 0 <= min(passed) <= max(passed) < _SECOND << 32:
        return None
    return [*map(floordiv, passed, repeat(_SECOND))]


def _fractions(passed: Sequence[int], scale: int) -> list[int] | None:
    """Microseconds as ticks of DateTime64; None if a moment is outside of the range of the type."""
    least, most = ((datetime(year, 1, 1) - _START) // _MICROSECOND for year in (1900, 2262))
    if passed and not least <= min(passed) <= max(passed) < most:
        return None
    if scale <= 6:
        return [*map(floordiv, passed, repeat(10 ** (6 - scale)))]
    return [number * 10 ** (scale - 6) for number in passed]


# Functions of the library that are replaced.


def use_numbers(context: Any) -> None:
    """Have the link of this context read and write these columns as numbers."""
    context.by_numbers = True


def _read(
    context: Any,
    column_spec: str,
    n_items: int,
    buf: Any,
    use_numpy: bool | None = None,
    has_custom_serialization: bool = False,
) -> Any:
    """Read a column: as numbers if the link wants that, otherwise as the library reads it."""
    if not _comes_as_numbers(context, column_spec):
        return _library_reads(
            context,
            column_spec,
            n_items,
            buf,
            use_numpy=use_numpy,
            has_custom_serialization=has_custom_serialization,
        )
    options = {"context": context, "has_custom_serialization": has_custom_serialization}
    column = get_column_by_spec(column_spec, options, use_numpy=use_numpy)
    column.after_read_items = None
    column.read_state_prefix(buf)
    return Numbers(column.read_data(n_items, buf))


def _comes_as_numbers(context: Any, kind: str) -> bool:
    if not getattr(context, "by_numbers", False):
        return False
    return decimal_of(kind) is not None or (_ticks(kind) is not None and _is_utc(context))


class Numbers(tuple[Any, ...]):
    """A column that came as numbers and None."""

    __slots__ = ()


def _is_utc(context: Any) -> bool:
    """Whether moments of the server, if their type names no zone, are in UTC."""
    zone = context.server_info.get_timezone()
    return zone is not None and is_utc(zone) and not context.settings.get("use_client_time_zone")


def _write(
    context: Any,
    column_name: str,
    column_spec: str,
    items: Any,
    buf: Any,
    types_check: bool = False,
) -> None:
    """Write a column: as numbers if it holds numbers, otherwise as the library writes it."""
    if not _goes_as_numbers(context, column_spec, items):
        _library_writes(context, column_name, column_spec, items, buf, types_check=types_check)
        return
    column = get_column_by_spec(column_spec, {"context": context, "types_check": types_check})
    column.before_write_items = None
    column.write_state_prefix(buf, items)
    column.write_data(items, buf)


def _goes_as_numbers(context: Any, kind: str, items: Sequence[Any]) -> bool:
    """Whether the items of a column are numbers that the server takes as they are."""
    if not getattr(context, "by_numbers", False):
        return False
    if decimal_of(kind) is not None:
        return True
    return _inner(kind)[0] in ("DateTime", "DateTime64") and set(map(type, items)) <= _WHOLE


_WHOLE = frozenset((int, type(None)))

# The replacement applies to the whole process.
# Links without `use_numbers` keep the library's behaviour.
_library_reads, native.read_column = native.read_column, _read
_library_writes, native.write_column = native.write_column, _write

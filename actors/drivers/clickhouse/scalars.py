"""Checks of values for ClickHouse's columns of single values.

A check says which values fit, and in which form they are written.

`trunkline.actors.drivers.clickhouse.types` combines these checks for nested columns.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta, tzinfo
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

from trunkline.actors.drivers.clickhouse.columns import is_utc
from trunkline.actors.drivers.clickhouse.literals import EPOCH
from trunkline.wire.documents import Json

__all__ = [
    "REFUSED",
    "SCALARS",
    "Fit",
    "Unfit",
    "Values",
    "decimals",
    "enum_names",
    "integers",
    "only",
    "seconds",
    "strings",
    "ticks",
    "why",
]

Values = Sequence[Any]
Fit = Callable[[Values], Values]
"""Checks the values of a column. Returns them in the form to write, or raises `Unfit`."""
_MICROSECOND = timedelta(microseconds=1)


class Unfit(ValueError):
    """A value does not fit. The text says why."""


REFUSED = (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RecursionError)
"""Errors of a check or a conversion for a value that does not fit."""


def why(error: Exception, value: Any) -> str:
    """The reason why a value was refused."""
    return str(error) if isinstance(error, Unfit) else f"this {type(value).__name__} does not fit"


def only(values: Values, wanted: tuple[type, ...], sentence: str) -> None:
    """`Unfit` if a value has another type than `wanted`."""
    other = set(map(type, values)) - set(wanted)
    if other:
        raise Unfit(f"{sentence}, not {_named(other)}")


def _named(kinds: set[type]) -> str:
    """The name of one of these types, for an error."""
    return "NULL" if type(None) in kinds else sorted(kind.__name__ for kind in kinds)[0]


def _plain(
    values: Values, accepted: frozenset[type], convert: Callable[[Any], Any], sentence: str
) -> Values:
    """The values, converted to accepted types.

    Returns `values` itself if all types are accepted already.
    """
    kinds = set(map(type, values))
    if kinds <= accepted:
        return values
    if type(None) in kinds:
        raise Unfit("NULL does not fit, for the column is not Nullable")
    try:
        return [value if type(value) in accepted else convert(value) for value in values]
    except REFUSED as error:
        if isinstance(error, Unfit):
            raise
        raise Unfit(f"{sentence}, not {_named(kinds - accepted)}") from None


def _within(values: Values, least: Any, most: Any) -> None:
    """`Unfit` if a value is outside of the range."""
    if values and (min(values) < least or max(values) > most):
        wrong = next(value for value in values if not least <= value <= most)
        raise Unfit(f"{wrong} is not between {least} and {most}")


def integers(bits: int, unsigned: bool) -> Fit:
    """The check for integers of so many bits."""
    least, most = (0, (1 << bits) - 1) if unsigned else (-(1 << bits - 1), (1 << bits - 1) - 1)
    code = _CODES.get(bits, "")
    code = code.upper() if unsigned else code

    def fit(values: Values) -> Values:
        if code and _packs(code, values):
            return values
        values = _plain(values, _WHOLE, _whole, "a whole number is wanted")
        _within(values, least, most)
        return values

    return fit


_CODES = {8: "b", 16: "h", 32: "i", 64: "q"}


def _packs(code: str, values: Values) -> bool:
    """Whether an array of this type code takes all values.

    Types and range are then checked in C, in one pass.
    """
    try:
        array(code, values)
    except (TypeError, OverflowError):
        return False
    return True


_WHOLE = frozenset((int, bool))


def _whole(value: Any) -> int:
    """A whole number from an int of another class or from its text."""
    if isinstance(value, (int, str)):
        return int(value)
    raise TypeError


def _float(value: Any) -> float:
    """A float from a Decimal or from a text."""
    if isinstance(value, (Decimal, str)):
        return float(value)
    raise TypeError


def floats(values: Values) -> Values:
    """Check for Float64."""
    if _packs("d", values):
        return values
    values = _plain(values, frozenset((float, int, bool)), _float, "a number is wanted")
    if not _packs("d", values):
        raise Unfit("the number is too large")
    return values


def _single_floats(values: Values) -> Values:
    """Check for Float32."""
    values = floats(values)
    if any(_LARGEST_SINGLE < abs(value) != float("inf") for value in map(float, values)):
        raise Unfit("the number is too large for 32 bits")
    return values


_LARGEST_SINGLE = 3.4028235677973366e38


def decimals(precision: int, scale: int) -> Fit:
    """The check for Decimals of this precision and scale."""
    step, most = Decimal(1).scaleb(-scale), Decimal(10) ** (precision - scale)
    context = Context(prec=precision + 2)

    def exact(value: Any) -> Decimal:
        if isinstance(value, float):
            return Decimal(repr(value)).quantize(step, context=context)
        if isinstance(value, (int, str)):
            return Decimal(value)
        raise TypeError

    def fit(values: Values) -> Values:
        values = _plain(values, frozenset((Decimal,)), exact, "a number is wanted")
        if values and not -most < min(values) <= max(values) < most:
            raise Unfit(
                f"the number does not fit {precision} digits, {scale} of them after the point"
            )
        if all(map(step.same_quantum, values)):
            return values
        if [value.quantize(step, context=context) for value in values] != list(values):
            raise Unfit(f"the number has more than {scale} digits after the point; quantize() it")
        return values

    return fit


def strings(length: int | None) -> Fit:
    """The check for texts, of `length` bytes at most; None for no limit."""

    def fit(values: Values) -> Values:
        values = _plain(values, frozenset((str, bytes)), _bytes, "text or bytes are wanted")
        texts = (
            [value for value in values if type(value) is str]
            if bytes in set(map(type, values))
            else values
        )
        try:
            whole = "".join(texts)
            if not whole.isascii():
                whole.encode()
        except UnicodeEncodeError:
            raise Unfit("the text has half a surrogate pair and is no UTF-8; bind bytes") from None
        if length is not None:
            sizes = [len(value.encode()) if type(value) is str else len(value) for value in values]
            if max(sizes, default=0) > length:
                raise Unfit(f"it is longer than {length} bytes")
        return values

    return fit


def _bytes(value: Any) -> str | bytes:
    """Text or bytes from subclasses and related types."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, Json):
        return value.text
    raise TypeError


def _days(least: date, most: date) -> Fit:
    """The check for dates in this range."""

    def fit(values: Values) -> Values:
        values = _plain(values, frozenset((date,)), _day, "a date is wanted")
        _within(values, least, most)
        return values

    return fit


def _day(value: Any) -> date:
    """A date from its text or from a datetime."""
    if isinstance(value, str):
        return date.fromisoformat(value)
    if isinstance(value, datetime):
        return value.date()
    raise TypeError


def _moment(value: Any, zone: tzinfo) -> datetime:
    """A datetime with a zone. `zone`: for a value without one."""
    if isinstance(value, str):
        return _moment(datetime.fromisoformat(value), zone)
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=zone)
    if not isinstance(value, datetime):
        raise TypeError
    return value if value.tzinfo is not None else value.replace(tzinfo=zone)


def seconds(zone: tzinfo) -> Fit:
    """The check for DateTime.

    Returns datetimes, or seconds since 1970. `zone`: for values without a zone.
    """
    least, most = EPOCH, EPOCH + timedelta(seconds=(1 << 32) - 1)
    bare = [moment.replace(tzinfo=None) for moment in (least, most)]

    def convert(value: Any) -> int:
        return (_moment(value, zone) - EPOCH) // _SECOND

    def fit(values: Values) -> Values:
        if set(map(type, values)) == {datetime}:
            # The library writes these correctly, and faster than a conversion here.
            # Without a zone the library ignores `fold`.
            # Datetimes with and without a zone cannot be compared.
            with suppress(TypeError):
                first, last = min(values), max(values)
                low, high = bare if first.tzinfo is None else (least, most)
                if low <= first <= last <= high and (first.tzinfo is not None or is_utc(zone)):
                    return values
        numbers = _plain(values, frozenset((int,)), convert, "a datetime is wanted")
        if numbers and (min(numbers) < 0 or max(numbers) >= 1 << 32):
            raise Unfit("a DateTime is between 1970-01-01 and 2106-02-07 06:28:15, UTC")
        return numbers

    return fit


_SECOND = timedelta(seconds=1)


def ticks(scale: int, zone: tzinfo) -> Fit:
    """The check for DateTime64. Returns ticks of 10**-scale seconds since 1970."""

    def convert(value: Any) -> int:
        moment = _moment(value, zone)
        if not 1900 <= moment.year <= (2299 if scale < 9 else 2262):
            raise Unfit("a DateTime64 is between the years 1900 and 2299 (2262 with nine digits)")
        micros = (moment - EPOCH) // _MICROSECOND
        ticks: int = micros * 10 ** (scale - 6) if scale >= 6 else micros // 10 ** (6 - scale)
        return ticks

    return lambda values: _plain(values, frozenset((int,)), convert, "a datetime is wanted")


def _uuids(values: Values) -> Values:
    """Check for UUID."""

    def convert(value: Any) -> UUID:
        if isinstance(value, str):
            return UUID(value)
        raise TypeError

    return _plain(values, frozenset((UUID,)), convert, "a UUID is wanted")


def enum_names(arguments: list[str]) -> Fit:
    """The check for an Enum with these elements."""
    pairs = [_ELEMENT.match(argument) for argument in arguments]
    known = {re.sub(r"\\(.)", r"\1", pair["name"]) for pair in pairs if pair}
    known_numbers = {int(pair["number"]) for pair in pairs if pair}

    def fit(values: Values) -> Values:
        only(values, (str, int), "a name of the Enum is wanted")
        if not set(values) <= known | known_numbers:
            raise Unfit(f"it is none of the names {', '.join(sorted(known)[:20])}")
        return values

    return fit


_ELEMENT = re.compile(r"'(?P<name>(?:[^'\\]|\\.)*)'\s*=\s*(?P<number>-?\d+)\Z", re.DOTALL)


def _bools(values: Values) -> Values:
    """Check for Bool."""

    def convert(value: Any) -> bool:
        raise TypeError

    return _plain(values, _WHOLE, convert, "True or False is wanted")


SCALARS: dict[str, Fit] = {
    "String": strings(None),
    "Float32": _single_floats,
    "Float64": floats,
    "Date": _days(date(1970, 1, 1), date(2149, 6, 6)),
    "Date32": _days(date(1900, 1, 1), date(2299, 12, 31)),
    "UUID": _uuids,
    "Bool": _bools,
}

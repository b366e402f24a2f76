"""Columns on their way into ClickHouse, checked before a byte of them is sent, and what has to be changed in
rows that come from it.

The library writes a date out of range as 1970-01-01 and an Int128 too large as another number, cuts digits
off decimals, and of a value that it cannot write it tells the server half a block. So each column is looked
at first: as an array, as the set of its types, by its least and greatest value; only where that is not enough
value by value.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Context, Decimal
from itertools import chain
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from trunkline.actors.drivers.clickhouse_literals import EPOCH
from trunkline.errors import StatementError

__all__ = ["Mender", "fitted", "mender", "zone_named"]

Values = Sequence[Any]
Fit = Callable[[Values], Values]
_MICROSECOND = timedelta(microseconds=1)


def zone_named(name: str) -> tzinfo:
    """The zone of a server or a column; UTC where this machine does not know it."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return UTC


def fitted(rows: Sequence[Any], kinds: Sequence[tuple[str, str]], zone: tzinfo) -> list[list[Any]]:
    """Rows as columns that the library writes rightly. `kinds` are the columns' names and types; a row may be
    a dict by their names. StatementError, naming row and column, for a value that does not fit."""
    names = [name for name, _ in kinds]
    columns: list[list[Any]] = [[] for _ in kinds]
    fits = [_fit(kind, zone) for _, kind in kinds]
    for start in range(0, len(rows), _CHUNK):
        parts = _columns(rows[start : start + _CHUNK], names, start)
        for column, part, fit, (name, kind) in zip(columns, parts, fits, kinds, strict=True):
            try:
                column += fit(part)
            except _REFUSED:
                row, why = _culprit(fit, part)
                raise StatementError(f"row {start + row}, column {name} ({kind}): {why}") from None
    return columns


_CHUNK = 4096
"""Rows that are looked at together: few enough to be in the processor's cache all the while, which halves the
time."""


def _columns(rows: Sequence[Any], names: Sequence[str], start: int) -> list[Values]:
    kinds = set(map(type, rows))
    if kinds == {dict}:
        return [_picked(rows, name, start) for name in names]
    if not kinds <= {list, tuple}:
        raise StatementError("each row must be a list or a tuple of values, or each a dict of them")
    if set(map(len, rows)) != {len(names)}:
        index, row = next((index, row) for index, row in enumerate(rows) if len(row) != len(names))
        raise StatementError(
            f"row {start + index + 1} has {len(row)} values, and the columns are {len(names)}:"
            f" {', '.join(names)}"
        )
    return [[row[index] for row in rows] for index in range(len(names))]


def _picked(rows: Sequence[dict[str, Any]], name: str, start: int) -> Values:
    try:
        return [row[name] for row in rows]
    except KeyError:
        index = next(index for index, row in enumerate(rows) if name not in row)
    raise StatementError(f"row {start + index + 1} has no value for the column {name}")


def _culprit(fit: Fit, values: Values) -> tuple[int, str]:
    """The first value that does not fit, counted from 1, and why."""
    for index, value in enumerate(values):
        try:
            fit([value])
        except _REFUSED as error:
            return index + 1, _why(error, value)
    return 1, "the values do not fit together"


class _Unfit(ValueError):
    """A value does not fit; the text says why."""


_REFUSED = (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RecursionError)


def _why(error: Exception, value: Any) -> str:
    return str(error) if isinstance(error, _Unfit) else f"this {type(value).__name__} does not fit"


# the types of columns


def _fit(kind: str, zone: tzinfo) -> Fit:
    name, arguments = _parted(kind)
    if name == "Nullable":
        return _nullable(_fit(arguments[0], zone))
    if name == "LowCardinality":
        return _fit(arguments[0], zone)
    if name == "Array":
        return _array(_fit(arguments[0], zone))
    if name == "Tuple":
        return _tuple([_fit(_unnamed(argument), zone) for argument in arguments])
    if name == "Map":
        return _map(_fit(arguments[0], zone), _fit(arguments[1], zone))
    return _scalar(name, arguments, zone)


def _scalar(name: str, arguments: list[str], zone: tzinfo) -> Fit:
    bits = _INTEGER.match(name)
    if bits:
        return _integers(int(bits["bits"]), unsigned=name[0] == "U")
    if name in ("DateTime", "DateTime64"):
        scale = int(arguments.pop(0)) if name == "DateTime64" else 0
        zone = zone_named(arguments[0].strip("'")) if arguments else zone
        return _ticks(scale, zone) if name == "DateTime64" else _seconds(zone)
    if name == "Decimal":
        return _decimals(int(arguments[0]), int(arguments[1]))
    if name == "FixedString":
        return _strings(int(arguments[0]))
    if name in ("Enum8", "Enum16"):
        return _names(arguments)
    found = _SCALARS.get(name)
    return found if found is not None else lambda values: values


_INTEGER = re.compile(r"U?Int(?P<bits>\d+)\Z")


def _parted(kind: str) -> tuple[str, list[str]]:
    """`Tuple(a Int8, String)` as `Tuple` and its arguments."""
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


def _unnamed(argument: str) -> str:
    """The type of a tuple's element that may have a name."""
    found = re.match(r"(?:`(?:[^`\\]|\\.)*`|\w+)\s+(?=\w)", argument)
    return argument[found.end() :] if found else argument


def _nullable(inner: Fit) -> Fit:
    def fit(values: Values) -> Values:
        if type(None) not in set(map(type, values)):
            return inner(values)
        present = [value for value in values if value is not None]
        fitting = inner(present)
        if fitting is present:
            return values
        rest = iter(fitting)
        return [None if value is None else next(rest) for value in values]

    return fit


def _array(inner: Fit) -> Fit:
    def fit(values: Values) -> Values:
        _only(values, (list, tuple), "an Array takes a list")
        flat = list(chain.from_iterable(values))
        fitting = inner(flat)
        if fitting is flat:
            return values
        rest = iter(fitting)
        return [[next(rest) for _ in value] for value in values]

    return fit


def _tuple(inner: list[Fit]) -> Fit:
    def fit(values: Values) -> Values:
        _only(values, (list, tuple), "a Tuple takes a tuple")
        if set(map(len, values)) - {len(inner)}:
            raise _Unfit(f"a tuple of {len(inner)} values is wanted")
        parts = list(zip(*values, strict=True))
        return list(zip(*(fit(part) for fit, part in zip(inner, parts, strict=False)), strict=True))

    return fit


def _map(keys: Fit, items: Fit) -> Fit:
    def fit(values: Values) -> Values:
        _only(values, (dict,), "a Map takes a dict")
        first = iter(keys(list(chain.from_iterable(values))))
        second = iter(items(list(chain.from_iterable(value.values() for value in values))))
        return [{next(first): next(second) for _ in value} for value in values]

    return fit


def _only(values: Values, wanted: tuple[type, ...], sentence: str) -> None:
    other = set(map(type, values)) - set(wanted)
    if other:
        raise _Unfit(f"{sentence}, not {_named(other)}")


def _named(kinds: set[type]) -> str:
    return "NULL" if type(None) in kinds else sorted(kind.__name__ for kind in kinds)[0]


def _plain(values: Values, accepted: frozenset[type], convert: Callable[[Any], Any], sentence: str) -> Values:
    """The values, all of accepted types: they themselves, where they are that already."""
    kinds = set(map(type, values))
    if kinds <= accepted:
        return values
    if type(None) in kinds:
        raise _Unfit("NULL does not fit, for the column is not Nullable")
    try:
        return [value if type(value) in accepted else convert(value) for value in values]
    except _REFUSED as error:
        if isinstance(error, _Unfit):
            raise
        raise _Unfit(f"{sentence}, not {_named(kinds - accepted)}") from None


def _within(values: Values, least: Any, most: Any) -> None:
    if values and (min(values) < least or max(values) > most):
        wrong = next(value for value in values if not least <= value <= most)
        raise _Unfit(f"{wrong} is not between {least} and {most}")


def _integers(bits: int, unsigned: bool) -> Fit:
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
    """Whether an array takes them all: types and range are looked at in C, in one go."""
    try:
        array(code, values)
    except (TypeError, OverflowError):
        return False
    return True


_WHOLE = frozenset((int, bool))


def _whole(value: Any) -> int:
    if isinstance(value, (int, str)):
        return int(value)
    raise TypeError


def _float(value: Any) -> float:
    if isinstance(value, (Decimal, str)):
        return float(value)
    raise TypeError


def _floats(values: Values) -> Values:
    if _packs("d", values):
        return values
    values = _plain(values, frozenset((float, int, bool)), _float, "a number is wanted")
    if not _packs("d", values):
        raise _Unfit("the number is too large")
    return values


def _single_floats(values: Values) -> Values:
    values = _floats(values)
    if any(_LARGEST_SINGLE < abs(value) != float("inf") for value in map(float, values)):
        raise _Unfit("the number is too large for 32 bits")
    return values


_LARGEST_SINGLE = 3.4028235677973366e38


def _decimals(precision: int, scale: int) -> Fit:
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
            raise _Unfit(f"the number does not fit {precision} digits, {scale} of them after the point")
        if all(map(step.same_quantum, values)):
            return values
        if [value.quantize(step, context=context) for value in values] != list(values):
            raise _Unfit(f"the number has more than {scale} digits after the point; quantize() it")
        return values

    return fit


def _strings(length: int | None) -> Fit:
    def fit(values: Values) -> Values:
        values = _plain(values, frozenset((str, bytes)), _bytes, "text or bytes are wanted")
        texts = (
            [value for value in values if type(value) is str] if bytes in set(map(type, values)) else values
        )
        try:
            whole = "".join(texts)
            if not whole.isascii():
                whole.encode()
        except UnicodeEncodeError:
            raise _Unfit("the text has half a surrogate pair and is no UTF-8; bind bytes") from None
        if length is not None:
            sizes = [len(value.encode()) if type(value) is str else len(value) for value in values]
            if max(sizes, default=0) > length:
                raise _Unfit(f"it is longer than {length} bytes")
        return values

    return fit


def _bytes(value: Any) -> str | bytes:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError


def _days(least: date, most: date) -> Fit:
    def fit(values: Values) -> Values:
        values = _plain(values, frozenset((date,)), _day, "a date is wanted")
        _within(values, least, most)
        return values

    return fit


def _day(value: Any) -> date:
    if isinstance(value, str):
        return date.fromisoformat(value)
    if isinstance(value, datetime):
        return value.date()
    raise TypeError


def _moment(value: Any, zone: tzinfo) -> datetime:
    if isinstance(value, str):
        return _moment(datetime.fromisoformat(value), zone)
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=zone)
    if not isinstance(value, datetime):
        raise TypeError
    return value if value.tzinfo is not None else value.replace(tzinfo=zone)


def _seconds(zone: tzinfo) -> Fit:
    least, most = EPOCH, EPOCH + timedelta(seconds=(1 << 32) - 1)
    local = [moment.astimezone(zone).replace(tzinfo=None) for moment in (least, most)]

    def convert(value: Any) -> int:
        return (_moment(value, zone) - EPOCH) // _SECOND

    def fit(values: Values) -> Values:
        if set(map(type, values)) == {datetime}:
            # the library writes these rightly, and faster than we would
            with suppress(TypeError):  # with and without a zone do not compare
                first, last = min(values), max(values)
                low, high = local if first.tzinfo is None else (least, most)
                if low <= first <= last <= high:
                    return values
        numbers = _plain(values, frozenset((int,)), convert, "a datetime is wanted")
        if numbers and (min(numbers) < 0 or max(numbers) >= 1 << 32):
            raise _Unfit("a DateTime is between 1970-01-01 and 2106-02-07 06:28:15, UTC")
        return numbers

    return fit


_SECOND = timedelta(seconds=1)


def _ticks(scale: int, zone: tzinfo) -> Fit:
    def convert(value: Any) -> int:
        moment = _moment(value, zone)
        if not 1900 <= moment.year <= (2299 if scale < 9 else 2262):
            raise _Unfit("a DateTime64 is between the years 1900 and 2299 (2262 with nine digits)")
        micros = (moment - EPOCH) // _MICROSECOND
        ticks: int = micros * 10 ** (scale - 6) if scale >= 6 else micros // 10 ** (6 - scale)
        return ticks

    return lambda values: _plain(values, frozenset((int,)), convert, "a datetime is wanted")


def _uuids(values: Values) -> Values:
    def convert(value: Any) -> UUID:
        if isinstance(value, str):
            return UUID(value)
        raise TypeError

    return _plain(values, frozenset((UUID,)), convert, "a UUID is wanted")


def _names(arguments: list[str]) -> Fit:
    pairs = [_ELEMENT.match(argument) for argument in arguments]
    known = {re.sub(r"\\(.)", r"\1", pair["name"]) for pair in pairs if pair}
    known_numbers = {int(pair["number"]) for pair in pairs if pair}

    def fit(values: Values) -> Values:
        _only(values, (str, int), "a name of the Enum is wanted")
        if not set(values) <= known | known_numbers:
            raise _Unfit(f"it is none of the names {', '.join(sorted(known)[:20])}")
        return values

    return fit


_ELEMENT = re.compile(r"'(?P<name>(?:[^'\\]|\\.)*)'\s*=\s*(?P<number>-?\d+)\Z", re.DOTALL)


def _bools(values: Values) -> Values:
    def convert(value: Any) -> bool:
        raise TypeError

    return _plain(values, _WHOLE, convert, "True or False is wanted")


_SCALARS: dict[str, Fit] = {
    "String": _strings(None),
    "Float32": _single_floats,
    "Float64": _floats,
    "Date": _days(date(1970, 1, 1), date(2149, 6, 6)),
    "Date32": _days(date(1900, 1, 1), date(2299, 12, 31)),
    "UUID": _uuids,
    "Bool": _bools,
}


# rows that come

Mender = Callable[[Sequence[Any]], Sequence[Any]]


def mender(kinds: Sequence[tuple[str, str]]) -> Mender | None:
    """What makes rows of these columns ours; None where they are. The library's zones are pytz's, which do
    not travel: a column that names its zone gives that zone of the standard library."""
    changes = [
        (index, change) for index, (_, kind) in enumerate(kinds) if (change := _change(kind)) is not None
    ]
    if not changes:
        return None

    def mend(rows: Sequence[Any]) -> Sequence[Any]:
        if not rows:
            return rows
        columns: list[Any] = list(zip(*rows, strict=True))
        for index, change in changes:
            columns[index] = [None if value is None else change(value) for value in columns[index]]
        return list(zip(*columns, strict=True))

    return mend


def _change(kind: str) -> Callable[[Any], Any] | None:
    if "DateTime" not in kind:
        return None
    name, arguments = _parted(kind)
    if name in ("DateTime", "DateTime64"):
        return _into_zone(arguments[-1].strip("'")) if arguments and "'" in arguments[-1] else None
    if name in ("Nullable", "LowCardinality"):
        return _change(arguments[0])
    if name == "Array":
        change = _change(arguments[0])
        return change and (lambda value: [None if item is None else change(item) for item in value])
    return None


def _into_zone(name: str) -> Callable[[datetime], datetime] | None:
    try:
        zone = ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None
    return lambda value: value.astimezone(zone)

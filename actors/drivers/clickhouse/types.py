"""Columns on their way into ClickHouse, checked before a byte is sent.

Also the conversion of columns that come from ClickHouse.

The library does not refuse wrong values. It writes a date out of range as 1970-01-01, and an
Int128 that is too large as another number. It cuts digits off Decimals. If it cannot write a
value, it has already sent half a block to the server.
So each column is checked first: as an array, as the set of its types, by its least and greatest
value. Only if that is not enough, the values are checked one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from decimal import Context
from itertools import chain
from typing import Any
from zoneinfo import ZoneInfo

from trunkline.actors.drivers.clickhouse.columns import as_numbers, decimal_of, numbers_of, parted
from trunkline.actors.drivers.clickhouse.scalars import (
    REFUSED,
    SCALARS,
    Fit,
    Unfit,
    Values,
    decimals,
    enum_names,
    integers,
    only,
    seconds,
    strings,
    ticks,
    why,
)
from trunkline.errors import StatementError
from trunkline.wire.table import Column, Table, column_of, plain_column, with_gaps

__all__ = ["Travelling", "fitted", "travelling", "zone_named"]


def zone_named(name: str) -> tzinfo:
    """The zone of a server or a column; UTC if this machine does not know the zone."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return UTC


def fitted(
    parts: Iterable[Sequence[Any]], kinds: Sequence[tuple[str, str]], zone: tzinfo
) -> list[list[Any]]:
    """Rows as columns that the library writes correctly.

    The rows come in parts, which may be Tables. A row may be a dict by the columns' names.
    `kinds`: names and types of the columns.
    StatementError, with row and column, for a value that does not fit.
    """
    names = [name for name, _ in kinds]
    columns: list[list[Any]] = [[] for _ in kinds]
    fits = [_whole(kind, zone) for _, kind in kinds]
    start = 0
    for chunk in _chunks(parts):
        given = _columns(chunk, names, start)
        for column, part, fit, (name, kind) in zip(columns, given, fits, kinds, strict=True):
            try:
                numbers = _numbers(kind, part, zone)
                column += fit([*part.values()]) if numbers is None else numbers
            except REFUSED:
                row, why = _culprit(fit, [*part.values()])
                raise StatementError(f"row {start + row}, column {name} ({kind}): {why}") from None
        start += len(chunk)
    return columns


_CHUNK = 4096
"""Rows that are checked together.
So few rows stay in the processor's cache during the check, which halves the time.
"""


def _chunks(parts: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    """The parts in chunks of `_CHUNK` rows. A Table stays whole."""
    for part in parts:
        if type(part) is Table:
            yield part
        else:
            yield from (part[at : at + _CHUNK] for at in range(0, len(part), _CHUNK))


def _numbers(kind: str, column: Column, zone: tzinfo) -> Sequence[Any] | None:
    """A column as numbers, without a look at each value; None if each value needs a look."""
    if column.gaps and not kind.startswith("Nullable("):
        return None
    numbers = numbers_of(kind, column, zone)
    return numbers if numbers is None or not column.gaps else with_gaps(iter(numbers), column.gaps)


def _whole(kind: str, zone: tzinfo) -> Fit:
    """The check of a whole column.

    Decimals become numbers here, because whole columns of them are written as numbers.
    """
    fit, digits = _fit(kind, zone), decimal_of(kind)
    if digits is None:
        return fit
    scale, context = digits[1], Context(prec=digits[0] + 2)
    return lambda values: [
        None if value is None else int(context.scaleb(value, scale)) for value in fit(values)
    ]


def _columns(rows: Sequence[Any], names: Sequence[str], start: int) -> Sequence[Column]:
    """The rows as columns.

    StatementError for a row with a wrong number of values. `start`: how many rows came before.
    """
    if type(rows) is Table:
        if len(rows.columns) != len(names):
            raise _wrong_number(start + 1, len(rows.columns), names)
        return rows.columns
    kinds = set(map(type, rows))
    if kinds == {dict}:
        return [plain_column(_picked(rows, name, start)) for name in names]
    if not kinds <= {list, tuple}:
        raise StatementError("each row must be a list or a tuple of values, or each a dict of them")
    if set(map(len, rows)) != {len(names)}:
        index, row = next((index, row) for index, row in enumerate(rows) if len(row) != len(names))
        raise _wrong_number(start + index + 1, len(row), names)
    return [plain_column([row[index] for row in rows]) for index in range(len(names))]


def _wrong_number(row: int, count: int, names: Sequence[str]) -> StatementError:
    """The error for a row with `count` values."""
    has = "1 value" if count == 1 else f"{count} values"
    return StatementError(
        f"row {row} has {has}, and the columns are {len(names)}: {', '.join(names)}"
    )


def _picked(rows: Sequence[dict[str, Any]], name: str, start: int) -> list[Any]:
    """One column of rows that are dicts. StatementError for a row without the column."""
    try:
        return [row[name] for row in rows]
    except KeyError:
        index = next(index for index, row in enumerate(rows) if name not in row)
    raise StatementError(f"row {start + index + 1} has no value for the column {name}")


def _culprit(fit: Fit, values: Values) -> tuple[int, str]:
    """The number, from 1, of the first value that does not fit, and the reason."""
    for index, value in enumerate(values):
        try:
            fit([value])
        except REFUSED as error:
            return index + 1, why(error, value)
    return 1, "the values do not fit together"


# The types of columns.


def _fit(kind: str, zone: tzinfo) -> Fit:
    """The check for a type, which may be nested."""
    name, arguments = parted(kind)
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
    """The check for a type of single values.

    A type that is not known here is left to the library.
    """
    bits = _INTEGER.match(name)
    if bits:
        return integers(int(bits["bits"]), unsigned=name[0] == "U")
    if name in ("DateTime", "DateTime64"):
        scale = int(arguments.pop(0)) if name == "DateTime64" else 0
        zone = zone_named(arguments[0].strip("'")) if arguments else zone
        return ticks(scale, zone) if name == "DateTime64" else seconds(zone)
    if name == "Decimal":
        return decimals(int(arguments[0]), int(arguments[1]))
    if name == "FixedString":
        return strings(int(arguments[0]))
    if name in ("Enum8", "Enum16"):
        return enum_names(arguments)
    found = SCALARS.get(name)
    return found if found is not None else lambda values: values


_INTEGER = re.compile(r"U?Int(?P<bits>\d+)\Z")


def _unnamed(argument: str) -> str:
    """The type of a tuple's element, without the element's name."""
    found = re.match(r"(?:`(?:[^`\\]|\\.)*`|\w+)\s+(?=\w)", argument)
    return argument[found.end() :] if found else argument


def _nullable(inner: Fit) -> Fit:
    """The check for a Nullable column: None passes, and `inner` checks all other values."""

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
    """The check for an Array: `inner` checks the elements of all lists in one call."""

    def fit(values: Values) -> Values:
        only(values, (list, tuple), "an Array takes a list")
        flat = list(chain.from_iterable(values))
        fitting = inner(flat)
        if fitting is flat:
            return values
        rest = iter(fitting)
        return [[next(rest) for _ in value] for value in values]

    return fit


def _tuple(inner: list[Fit]) -> Fit:
    """The check for a Tuple: each check of `inner` checks one place of all tuples."""

    def fit(values: Values) -> Values:
        only(values, (list, tuple), "a Tuple takes a tuple")
        if set(map(len, values)) - {len(inner)}:
            raise Unfit(f"a tuple of {len(inner)} values is wanted")
        parts = list(zip(*values, strict=True))
        return list(zip(*(fit(part) for fit, part in zip(inner, parts, strict=False)), strict=True))

    return fit


def _map(keys: Fit, items: Fit) -> Fit:
    """The check for a Map: keys and values of all dicts are checked in one call each."""

    def fit(values: Values) -> Values:
        only(values, (dict,), "a Map takes a dict")
        first = iter(keys(list(chain.from_iterable(values))))
        second = iter(items(list(chain.from_iterable(value.values() for value in values))))
        return [{next(first): next(second) for _ in value} for value in values]

    return fit


# Rows that come from the server.

Travelling = Callable[[Sequence[Any]], Column]


def travelling(kind: str, numbers: bool) -> Travelling:
    """The function that packs a column of the server. `numbers`: the column came as numbers."""
    travel = as_numbers(kind, utc=True) if numbers else None
    if travel is not None:
        return lambda values: travel(*_without_gaps(values))
    change = _change(kind)
    if change is None:
        return column_of
    return lambda values: column_of([None if value is None else change(value) for value in values])


def _without_gaps(values: Sequence[Any]) -> tuple[Sequence[Any], list[int]]:
    """The values without None, and the places of None."""
    if None not in values:
        return values, []
    gaps = [index for index, value in enumerate(values) if value is None]
    return [value for value in values if value is not None], gaps


def _change(kind: str) -> Callable[[Any], Any] | None:
    """The function that converts a value of this type; None if no conversion is needed.

    The library's zones are those of pytz, which cannot be packed.
    A column that names its zone gets that zone of the standard library.
    """
    if "DateTime" not in kind:
        return None
    name, arguments = parted(kind)
    if name in ("DateTime", "DateTime64"):
        return _into_zone(arguments[-1].strip("'")) if arguments and "'" in arguments[-1] else None
    if name in ("Nullable", "LowCardinality"):
        return _change(arguments[0])
    if name == "Array":
        change = _change(arguments[0])
        return change and (lambda value: [None if item is None else change(item) for item in value])
    return None


def _into_zone(name: str) -> Callable[[datetime], datetime] | None:
    """A function that moves a datetime into the zone.

    None if this machine does not know the zone.
    """
    try:
        zone = ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None
    return lambda value: value.astimezone(zone)

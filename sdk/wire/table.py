"""Rows as bytes and back, faster than value by value for columns of times or Decimals.

msgpack has no type for times and Decimals, so each value would cost a Python call on either side.
That is more than a database's own library takes for the whole row. A column of such values (and
None) therefore travels as a list of plain msgpack values, written and read without Python code per
value. Other columns go through `trunkline.wire.values`.

Where a database library has columns instead of rows, the worker makes a `Table` of them, and makes
no row, time or Decimal at all. `unpack_table` returns a `Table` for writing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from itertools import islice, repeat
from operator import add, attrgetter, floordiv, mul, sub
from typing import Any, NamedTuple, overload

from trunkline.wire import values

__all__ = [
    "DECIMALS",
    "MOMENTS",
    "Column",
    "Table",
    "column_of",
    "moments",
    "pack_rows",
    "plain_column",
    "scaled_decimals",
    "unpack_rows",
    "unpack_table",
    "with_gaps",
]

_ROWS, _COLUMNS = 0, 1
_FEW = 8
"""With fewer rows, turning them into columns does not pay."""
_MANY = 100
_AS_THEY_ARE = 0
DECIMALS = 1
"""The codec of Decimals: a text for each."""
MOMENTS = 2
"""The codec of datetimes: offsets, an index of its offset for each value, microseconds.

The indexes are empty where all values have the same offset.
"""
_SCALED = 5
_MOST_DIGITS = 76
_NONE = type(None)
_START = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_zone, _fold = attrgetter("tzinfo"), attrgetter("fold")
_clock = attrgetter("hour"), attrgetter("minute"), attrgetter("second"), attrgetter("microsecond")
_exactly = Context(prec=80, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])


class Column(NamedTuple):
    """A column as it travels."""

    codec: int
    gaps: list[int]
    """The indexes of None, in order."""
    content: Any
    """The remaining values, in the form of the codec."""

    def values(self) -> Iterable[Any]:
        """Return the values that `column_of` was given."""
        number, gaps, content = self
        if number == _AS_THEY_ARE:
            return content  # type: ignore[no-any-return]
        found = _READERS[number](content)
        return with_gaps(iter(found), gaps) if gaps else found


def scaled_decimals(numbers: Iterable[int], scale: int, gaps: list[int]) -> Column:
    """Make a column of Decimals from whole numbers, each divided by ten to the power of `scale`."""
    return Column(_SCALED, gaps, [scale, [*numbers]])


def _read_scaled(given: Any) -> Iterable[Decimal]:
    scale, numbers = given
    if not 0 <= scale <= _MOST_DIGITS:  # a forged scale would take all memory
        text = f"a Decimal of scale {scale}"
        raise ValueError(text)
    if not scale:
        return map(Decimal, numbers)
    return map(_exactly.divide, map(Decimal, numbers), repeat(Decimal(10**scale)))


class _Codec(NamedTuple):
    number: int
    """The number of the codec. Part of the protocol."""
    write: Callable[[Sequence[Any]], Any]
    """Return the values in a form for `values.pack`; None where a value would lose information."""
    read: Callable[[Any], Iterable[Any]]


def _write_decimals(column: Sequence[Decimal]) -> list[str]:
    return [*map(str, column)]


def _read_decimals(texts: list[str]) -> Iterable[Decimal]:
    return map(Decimal, texts)


def _write_moments(column: Sequence[datetime]) -> Any:
    """Return microseconds since 1970 by the clock of the zone, and the zones.

    A zone is None, or an offset without a name of its own. Returns None for any further zone, and
    for a `fold`.
    """
    zones = [*set(map(_zone, column))]
    if not all(map(_plain_offset, zones)) or any(map(_fold, column)):
        return None
    starts: Iterable[datetime] = repeat(_START.replace(tzinfo=zones[0]))
    which: list[int] = []
    if len(zones) > 1:
        numbers = {zone: number for number, zone in enumerate(zones)}
        which = [numbers[value.tzinfo] for value in column]
        starts = map([_START.replace(tzinfo=zone) for zone in zones].__getitem__, which)
    passed = map(floordiv, map(sub, column, starts), repeat(_MICROSECOND))
    offsets = [None if zone is None else zone.utcoffset(None) // _MICROSECOND for zone in zones]
    return offsets, which, [*passed]


def _read_moments(given: Any) -> Iterable[datetime]:
    offsets, which, passed = given
    starts = [_START.replace(tzinfo=_from_offset(offset)) for offset in offsets]
    begin: Iterable[datetime] = map(starts.__getitem__, which) if which else repeat(starts[0])
    return map(add, begin, map(mul, passed, repeat(_MICROSECOND)))


def moments(passed: Iterable[int], unit: int, gaps: list[int]) -> Column:
    """Make a column of datetimes without a zone. `passed`: units of `unit` us since 1970."""
    return Column(MOMENTS, gaps, [[None], [], [*map(mul, passed, repeat(unit))]])


def _plain_offset(zone: tzinfo | None) -> bool:
    """Whether a zone is None or a plain offset, without a name of its own."""
    return zone is None or (
        type(zone) is timezone and str(zone) == str(timezone(zone.utcoffset(None)))
    )


def _from_offset(microseconds: int | None) -> timezone | None:
    return None if microseconds is None else timezone(timedelta(microseconds=microseconds))


def _write_dates(column: Sequence[date]) -> list[int]:
    return [*map(date.toordinal, column)]


def _read_dates(days: list[int]) -> Iterable[date]:
    return map(date.fromordinal, days)


def _write_times(column: Sequence[time]) -> Any:
    if set(map(_zone, column)) != {None} or any(map(_fold, column)):
        return None
    return [[*map(part, column)] for part in _clock]


def _read_times(parts: list[list[int]]) -> Iterable[time]:
    return map(time, *parts)


_CODECS: dict[type, _Codec] = {
    Decimal: _Codec(DECIMALS, _write_decimals, _read_decimals),
    datetime: _Codec(MOMENTS, _write_moments, _read_moments),
    date: _Codec(3, _write_dates, _read_dates),
    time: _Codec(4, _write_times, _read_times),
}
_READERS = {codec.number: codec.read for codec in _CODECS.values()} | {_SCALED: _read_scaled}


class Table(Sequence[list[Any]]):
    """Rows in the form of columns. As a sequence, it makes all rows at the first access."""

    def __init__(self, columns: Sequence[Column], count: int) -> None:
        self.columns = columns
        self._count = count
        self._rows: list[list[Any]] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> list[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[Any]]: ...
    def __getitem__(self, index: int | slice) -> list[Any] | list[list[Any]]:
        return self.rows()[index]

    def rows(self) -> list[list[Any]]:
        """The rows as lists."""
        if self._rows is None:
            rows = [*map(list, zip(*(column.values() for column in self.columns), strict=True))]
            if len(rows) != self._count:
                text = f"{len(rows)} rows, not {self._count}"
                raise ValueError(text)
            self._rows = rows
        return self._rows


def pack_rows(rows: Sequence[Any]) -> bytes:
    """Return rows as bytes. A row is a list, a tuple (which becomes a list) or a dict.

    Errors are those of `values.pack`.
    """
    return values.calmly(_pack_rows, rows) if len(rows) > _MANY else _pack_rows(rows)


def _pack_rows(rows: Sequence[Any]) -> bytes:
    """Choose columns where they pay: enough rows, times or Decimals in them, equal lengths."""
    if type(rows) is Table:
        return values.pack([_COLUMNS, [*map(list, rows.columns)], len(rows)])
    if len(rows) >= _FEW and _gains(rows[0], rows[-1]) and len(set(map(len, rows))) == 1:
        columns = [list(column_of(column)) for column in zip(*rows, strict=True)]
        return values.pack([_COLUMNS, columns, len(rows)])
    if tuple in set(map(type, rows)):
        rows = [list(row) if type(row) is tuple else row for row in rows]
    return values.pack([_ROWS, rows])


def unpack_rows(data: bytes | memoryview) -> list[Any]:
    """Return the rows that `pack_rows` was given. Raises ValueError for malformed data."""
    return values.calmly(_unpack_rows, data) if len(data) > values.LARGE else _unpack_rows(data)


def _unpack_rows(data: bytes | memoryview) -> list[Any]:
    found = unpack_table(data)
    if type(found) is list:
        return found
    try:
        return found.rows()  # type: ignore[union-attr]
    except _MALFORMED as error:
        text = f"malformed rows on the wire: {error}"
        raise ValueError(text) from None


def unpack_table(data: bytes | memoryview) -> list[Any] | Table:
    """As `unpack_rows`, but rows that travelled as columns stay a `Table`."""
    try:
        form, content, *count = values.unpack(data)
        if form == _ROWS and type(content) is list:
            return content
        if form == _COLUMNS:
            return Table([Column(*column) for column in content], *count)
    except _MALFORMED as error:
        text = f"malformed rows on the wire: {error}"
        raise ValueError(text) from None
    raise ValueError("malformed rows on the wire")


_MALFORMED = (ValueError, TypeError, LookupError, ArithmeticError)


def _gains(*rows: Any) -> bool:
    """Whether these rows hold values that travel faster in columns."""
    return any(type(value) in _CODECS for row in rows if type(row) is not dict for value in row)


def plain_column(content: list[Any]) -> Column:
    """Make a column whose values travel unchanged."""
    return Column(_AS_THEY_ARE, [], content)


def column_of(column: Sequence[Any]) -> Column:
    """Make a column in the form in which it travels."""
    kinds = set(map(type, column))
    kind = next(iter(kinds - {_NONE}), _NONE)
    codec = _CODECS.get(kind)
    if codec is None or len(kinds - {_NONE}) > 1:
        return plain_column(list(column))
    gaps = [index for index, value in enumerate(column) if value is None] if _NONE in kinds else []
    written = codec.write([value for value in column if value is not None] if gaps else column)
    if written is None:
        return plain_column(list(column))
    return Column(codec.number, gaps, list(written))


def with_gaps(found: Iterator[Any], gaps: Sequence[int]) -> list[Any]:
    """Return the values, with None inserted at the indexes `gaps`."""
    whole: list[Any] = []
    for index in gaps:
        whole.extend(islice(found, index - len(whole)))
        whole.append(None)
    whole.extend(found)
    return whole

"""Rows as bytes and back, faster than value by value where a column holds times or Decimals.

msgpack knows neither, so each of them would cost a call of Python on either side, which is more than a
database's own library takes for the whole row. A column of nothing but such values (and None) travels as a
list of what msgpack does know instead, written and read without Python in between. Everything else is
`trunkline.wire.values`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from itertools import islice, repeat
from operator import add, attrgetter, floordiv, mul, sub
from typing import Any, NamedTuple

from trunkline.wire import values

__all__ = ["pack_rows", "unpack_rows"]

_ROWS, _COLUMNS = 0, 1
_FEW = 8
"""Rows for which turning them into columns does not pay."""
_MANY = 100
_AS_THEY_ARE = 0
_NONE = type(None)
_START = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_zone, _fold = attrgetter("tzinfo"), attrgetter("fold")
_clock = attrgetter("hour"), attrgetter("minute"), attrgetter("second"), attrgetter("microsecond")


class _Codec(NamedTuple):
    number: int
    """Part of the protocol."""
    write: Callable[[Sequence[Any]], Any]
    """The values as `values.pack` takes them; None when that would lose something."""
    read: Callable[[Any], Iterable[Any]]


def _write_decimals(column: Sequence[Decimal]) -> list[str]:
    return [*map(str, column)]


def _read_decimals(texts: list[str]) -> Iterable[Decimal]:
    return map(Decimal, texts)


def _write_moments(column: Sequence[datetime]) -> Any:
    """Microseconds since 1970 by the clock of the zone, and the zones: None or an offset without a name."""
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


def _plain_offset(zone: tzinfo | None) -> bool:
    return zone is None or (type(zone) is timezone and str(zone) == str(timezone(zone.utcoffset(None))))


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
    Decimal: _Codec(1, _write_decimals, _read_decimals),
    datetime: _Codec(2, _write_moments, _read_moments),
    date: _Codec(3, _write_dates, _read_dates),
    time: _Codec(4, _write_times, _read_times),
}
_READERS = {codec.number: codec.read for codec in _CODECS.values()}


def pack_rows(rows: Sequence[Any]) -> bytes:
    """Rows (lists or tuples, which become lists; or dicts) as bytes. Errors are those of `values.pack`."""
    return values.calmly(_pack_rows, rows) if len(rows) > _MANY else _pack_rows(rows)


def _pack_rows(rows: Sequence[Any]) -> bytes:
    if len(rows) >= _FEW and _gains(rows[0], rows[-1]) and len(set(map(len, rows))) == 1:
        return values.pack([_COLUMNS, [_packed(column) for column in zip(*rows, strict=True)]])
    if tuple in set(map(type, rows)):
        rows = [list(row) if type(row) is tuple else row for row in rows]
    return values.pack([_ROWS, rows])


def unpack_rows(data: bytes | memoryview) -> list[Any]:
    """The rows that `pack_rows` was given. ValueError when `data` is nothing of the kind."""
    return values.calmly(_unpack_rows, data) if len(data) > values.LARGE else _unpack_rows(data)


def _unpack_rows(data: bytes | memoryview) -> list[Any]:
    try:
        form, content = values.unpack(data)
        if form == _ROWS and type(content) is list:
            return content
        if form == _COLUMNS:
            return [*map(list, zip(*map(_unpacked, content), strict=True))]
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        text = f"malformed rows on the wire: {error}"
        raise ValueError(text) from None
    raise ValueError("malformed rows on the wire")


def _gains(*rows: Any) -> bool:
    """Whether these rows hold what goes faster by columns."""
    return any(type(value) in _CODECS for row in rows if type(row) is not dict for value in row)


def _packed(column: tuple[Any, ...]) -> tuple[int, list[int], Any] | list[Any]:
    """A column as `[codec, where None is, values]`."""
    kinds = set(map(type, column))
    kind = next(iter(kinds - {_NONE}), _NONE)
    codec = _CODECS.get(kind)
    if codec is None or len(kinds - {_NONE}) > 1:
        return [_AS_THEY_ARE, [], list(column)]
    gaps = [index for index, value in enumerate(column) if value is None] if _NONE in kinds else []
    written = codec.write([value for value in column if value is not None] if gaps else column)
    if written is None:
        return [_AS_THEY_ARE, [], list(column)]
    return [codec.number, gaps, list(written)]


def _unpacked(column: list[Any]) -> Iterable[Any]:
    number, gaps, content = column
    if number == _AS_THEY_ARE:
        return content  # type: ignore[no-any-return]
    found = _READERS[number](content)
    return _with_gaps(iter(found), gaps) if gaps else found


def _with_gaps(found: Any, gaps: list[int]) -> list[Any]:
    whole: list[Any] = []
    for index in gaps:
        whole.extend(islice(found, index - len(whole)))
        whole.append(None)
    whole.extend(found)
    return whole

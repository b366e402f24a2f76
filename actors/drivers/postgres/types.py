"""Conversion between values of PostgreSQL and of Python.

All casters belong to one connection, none to the process.

Numbers and text are read by psycopg2's casters in C. Moments and bytes have
casters here, for two reasons. They are faster than psycopg2's. And for values
that Python does not have (infinity, BC, years after 9999, 24:00) they return
the server's text, where psycopg2 raises an error or returns another moment.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any
from uuid import UUID

import psycopg2
from psycopg2 import BINARY
from psycopg2.extensions import UNICODE, AsIs, new_array_type, new_type, register_type, string_types
from psycopg2.extras import Inet

from trunkline.actors.database.binds import of_day
from trunkline.actors.drivers.postgres.rows import Repair
from trunkline.actors.drivers.postgres.shapes import Shape, shaped
from trunkline.errors import StatementError
from trunkline.wire.documents import Json

__all__ = ["Types", "register", "to_server"]

_INTERVAL = re.compile(
    r"(?:(?P<days>-?\d+) days?)? ?"
    r"(?:(?P<sign>[+-]?)(?P<h>\d+):(?P<m>\d\d):(?P<s>\d\d)(?:\.(?P<us>\d{1,6}))?)?",
    re.ASCII,
)


def _datetime(text: str | None, _: Any, read: Any = datetime.fromisoformat) -> Any:
    """A timestamp; its text if Python has no such moment."""
    try:
        return None if text is None else read(text)
    except ValueError:
        return text


def _date(text: str | None, _: Any, read: Any = date.fromisoformat) -> Any:
    """A date; its text if Python has no such day."""
    try:
        return None if text is None else read(text)
    except ValueError:
        return text


def _time(text: str | None, _: Any, read: Any = time.fromisoformat) -> Any:
    """A time of day; its text for 24:00."""
    try:
        return None if text is None else text if text.startswith("24") else read(text)
    except ValueError:
        return text


def _interval(text: str | None, _: Any) -> Any:
    """An interval.

    Text for an interval with months or years, because a month has no fixed length.
    Text for another IntervalStyle, too.
    """
    if text is None:
        return None
    match = _INTERVAL.fullmatch(text)
    if match is None or not text:
        return text
    seconds = int(match["h"] or 0) * 3600 + int(match["m"] or 0) * 60 + int(match["s"] or 0)
    clock = seconds * 1_000_000 + int((match["us"] or "").ljust(6, "0"))
    try:
        return timedelta(int(match["days"] or 0), 0, -clock if match["sign"] == "-" else clock)
    except OverflowError:
        return text


def _bytes(text: str | None, cursor: Any, read: Any = bytes.fromhex) -> Any:
    """Bytes, from either of the server's two text forms."""
    if text is None:
        return None
    if text.startswith("\\x"):
        return read(text[2:])
    # For bytea_output=escape.
    return bytes(BINARY(text, cursor))


def _uuid(text: str | None, _: Any) -> Any:
    return None if text is None else UUID(text)


def _json(text: str | None, _: Any, read: Any = json.loads) -> Any:
    """The value of a JSON document."""
    try:
        return None if text is None else read(text)
    except (ValueError, RecursionError):
        # An integer of more than 4300 digits, or a nesting that is too deep for Python.
        return text


_CASTERS: tuple[tuple[str, Callable[[str | None, Any], Any] | Any, dict[int, int]], ...] = (
    # Name, caster, {type: type of its array}.
    ("TIMESTAMP", _datetime, {1114: 1115, 1184: 1185}),
    ("DATE", _date, {1082: 1182}),
    ("TIME", _time, {1083: 1183, 1266: 1270}),
    ("INTERVAL", _interval, {1186: 1187}),
    ("BYTEA", _bytes, {17: 1001}),
    ("UUID", _uuid, {2950: 2951}),
    ("JSON", _json, {114: 199, 3802: 3807}),
    # Ranges stay text. psycopg2 would make objects of them.
    ("RANGE", UNICODE, {3904: 3905, 3906: 3907, 3908: 3909, 3910: 3911, 3912: 3913, 3926: 3927}),
)


def register(connection: Any) -> None:
    """Have a connection return values as this module describes."""
    for name, read, types in _CASTERS:
        # Registering a caster ties the caster to this connection.
        # UNICODE belongs to the whole process, so a function is registered in its place.
        convert = read if read is not UNICODE else lambda text, cursor: text
        caster = new_type(tuple(types), f"TRUNKLINE_{name}", convert)
        register_type(caster, connection)
        register_type(
            new_array_type(tuple(types.values()), f"TRUNKLINE_{name}[]", caster), connection
        )


_ARRAYS = """
SELECT a.oid, CASE WHEN e.typtype = 'd' THEN e.typbasetype ELSE e.oid END
FROM pg_catalog.pg_type a JOIN pg_catalog.pg_type e ON e.typarray = a.oid
WHERE a.oid = ANY(%s::oid[]) AND e.typdelim = ','
"""
"""Asks which of some types are arrays, and of which element type.
`box[]` is left out: psycopg2 does not know its delimiter.
"""


class Types:
    """The types that a connection has casters for.

    Values of other types arrive as text, except arrays.
    """

    def __init__(self, connection: Any) -> None:
        register(connection)
        self._connection = connection
        self._known = {*string_types, *connection.string_types}

    def repair(self, cursor: Any) -> Repair | None:
        """Ask the server about types that psycopg2 does not know (enums, user-defined types).

        The server is asked once for each type. Arrays of such types arrive as text.

        Returns a function that makes lists of the arrays in this result; None if there are none.
        Later results do not need the function, because a caster is registered.
        """
        unknown = {column.type_code for column in cursor.description} - self._known
        if not unknown:
            return None
        look = self._connection.cursor()
        try:
            look.execute(_ARRAYS, (list(unknown),))
            found = {oid: self._array(oid, element) for oid, element in look.fetchall()}
        except psycopg2.Error:
            return (
                # The statement has run. Arrays as text, this once, are better than no answer.
                None
            )
        finally:
            look.close()
        self._known |= unknown
        columns = enumerate(column.type_code for column in cursor.description)
        arrays = {index: found[oid] for index, oid in columns if oid in found}
        return partial(_read_arrays, arrays, cursor) if arrays else None

    def _array(self, oid: int, element: int) -> Any:
        """Register and return a caster for arrays of one type."""
        base = self._connection.string_types.get(element) or string_types.get(element) or UNICODE
        caster = new_array_type((oid,), f"TRUNKLINE_{oid}[]", base)
        register_type(caster, self._connection)
        return caster


def _read_arrays(arrays: Mapping[int, Any], cursor: Any, rows: Sequence[Any]) -> Sequence[Any]:
    """Rows whose arrays are lists. `arrays`: a caster for each column of arrays."""
    found = []
    for row in rows:
        values = list(row)
        for index, caster in arrays.items():
            values[index] = caster(values[index], cursor)
        found.append(tuple(values))
    return found


# to the server

_PLAIN = frozenset((int, float, str, bytes, bool, type(None), datetime, date, timedelta, bytearray))


def to_server(values: Sequence[Any], shapes: Sequence[Shape] = ()) -> Sequence[Any]:
    """The values in the form that psycopg2 takes.

    `shapes`: the shape that each parameter takes, if known.

    StatementError, with advice, for a value that PostgreSQL or the parameter cannot take.
    """
    if _PLAIN.issuperset(map(type, values)):
        return values
    known: Sequence[Shape | None] = shapes or [None] * len(values)
    return [
        value if type(value) in _PLAIN else _converted(value, shape)
        for value, shape in zip(values, known, strict=True)
    ]


def _converted(value: Any, shape: Shape | None) -> Any:
    """One value whose type psycopg2 does not take unchanged."""
    if isinstance(value, _CONTAINERS):
        return shaped(value, shape)
    for kind, convert in _CONVERTERS:
        if isinstance(value, kind):
            return convert(value)
    raise StatementError(
        f"PostgreSQL has no value for the type {type(value).__name__}; bind it as str, bytes or a list"
    )


def _decimal(value: Decimal) -> Any:
    # psycopg2 writes NaN for infinity.
    return value if value.is_finite() or value.is_nan() else AsIs(f"'{value}'::numeric")


_ADDRESSES = (
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)
_CONTAINERS = (list, tuple, set, frozenset, Mapping)
_CONVERTERS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (Enum, lambda value: to_server([value.value])[0]),
    (Decimal, _decimal),
    (UUID, lambda value: AsIs(f"'{value}'::uuid")),
    # A literal without a type, which fits json, jsonb and text.
    (Json, lambda value: value.text),
    (memoryview, bytes),
    (_ADDRESSES, lambda value: Inet(str(value))),
    (time, of_day),
    # Subclasses of types that psycopg2 takes unchanged.
    (bool, bool),
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    (tuple(_PLAIN - {type(None)}), lambda value: value),
)

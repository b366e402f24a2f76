"""The types of PEP 249: the type codes of `description`, and the constructors of values.

The type code of a column is the Python type of the first value that is not NULL (None without
such a value).
A type code equals the type object that it belongs to: `cursor.description[0][1] == NUMBER`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import date as Date
from datetime import datetime as Timestamp
from datetime import time as Time
from datetime import timedelta
from decimal import Decimal
from typing import Any

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "Date",
    "DateFromTicks",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "TypeObject",
    "described",
]

LOOKED_AT = 100
"""How many rows are searched for a value that is not NULL.
A stream fetches as many rows for the search.
"""

Column = tuple[str, type | None, None, None, None, None, None]


class TypeObject:
    """Equals every type code that belongs to it."""

    def __init__(self, name: str, *kinds: type) -> None:
        self.name = name
        self.kinds: frozenset[type] = frozenset(kinds)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TypeObject):
            return self.kinds == other.kinds
        return other in self.kinds if isinstance(other, type) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.kinds)

    def __repr__(self) -> str:
        return self.name


STRING = TypeObject("STRING", str)
BINARY = TypeObject("BINARY", bytes)
NUMBER = TypeObject("NUMBER", int, float, Decimal, bool)
DATETIME = TypeObject("DATETIME", Timestamp, Date, Time, timedelta)
ROWID = TypeObject("ROWID", int)

Binary = bytes


def DateFromTicks(ticks: float) -> Date:
    """The local date, `ticks` seconds after 1970."""
    return Date(*time.localtime(ticks)[:3])


def TimeFromTicks(ticks: float) -> Time:
    """The local time of day, `ticks` seconds after 1970."""
    return Time(*time.localtime(ticks)[3:6])


def TimestampFromTicks(ticks: float) -> Timestamp:
    """The local date and time, `ticks` seconds after 1970."""
    return Timestamp(*time.localtime(ticks)[:6])


def described(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Column] | None:
    """`cursor.description` of these columns; None for a statement without columns."""
    if not columns:
        return None
    looked_at = rows[:LOOKED_AT]
    return [
        (name, _type_code(looked_at, index), None, None, None, None, None)
        for index, name in enumerate(columns)
    ]


def _type_code(rows: Sequence[Sequence[Any]], index: int) -> type | None:
    return next((type(row[index]) for row in rows if row[index] is not None), None)

"""`Json`: a value that is bound to one placeholder as a JSON document.

A bare list or dict is never turned into JSON by guessing: it is refused where a single value stands
(see `trunkline.actors.database.binds`). The exception is PostgreSQL, which tells the type of the
column: for a `json` or `jsonb` column, a bare list or dict is a document. Elsewhere the program
writes `Json`.
"""

from __future__ import annotations

import ipaddress
import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from trunkline.wire.foreign import as_python

__all__ = ["Json", "json_text"]

_AS_STR = (
    Decimal,
    UUID,
    timedelta,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)


class Json:
    """A JSON document as one bound value: `exec("INSERT INTO t VALUES (?)", Json([1, 2]))`.

    `value` is None, bool, int, float, str, or a list, tuple or dict of these. Inside it, Decimal,
    UUID, timedelta and IP addresses become strings; datetimes, dates and times become ISO strings;
    an Enum member becomes its value; numbers of numpy become numbers. `text` is the document.

    Raises TypeError for a value of another type. Raises ValueError for a value that JSON does not
    have (nan, infinity), and for too deep nesting.
    """

    __slots__ = ("text",)

    text: str

    def __init__(self, value: Any) -> None:
        self.text = json_text(value)

    @classmethod
    def of_text(cls, text: str) -> Json:
        """Make a Json of a document that is text already."""
        found = cls.__new__(cls)
        found.text = text
        return found

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Json) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Json({self.text})"


def json_text(value: Any) -> str:
    """Return the value as a JSON document. Errors are those of `Json`."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_leaf)
    except RecursionError:
        problem = "it is nested too deep"
    except ValueError as error:
        problem = str(error)
    raise ValueError(f"this value cannot be written as JSON: {problem}")


def _leaf(value: Any) -> Any:
    """Replace a value that `json` cannot write. Raises TypeError without a replacement."""
    if isinstance(value, Json):
        return json.loads(value.text)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, _AS_STR):
        return str(value)
    found = as_python(value)
    if found is not value:
        return found
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    raise TypeError(f"JSON has no value for the type {type(value).__name__}")

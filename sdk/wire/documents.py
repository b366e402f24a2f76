"""`Json`: a value that is bound to one placeholder as a JSON document.

A bare list or dict is never made JSON by guessing: where one value stands, it is refused (see
`trunkline.actors.database.binds`). PostgreSQL tells the type of the column, and for a `json` or `jsonb`
column a bare list or dict is a document there; everywhere else the program says so with `Json`.
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

    `value` is None, bool, int, float, str, a list, tuple or dict of these. In it Decimal, UUID, timedelta and
    IP addresses become strings, datetimes, dates and times ISO strings, an Enum member its value, numbers of
    numpy the numbers. `text` is the document. TypeError for a value of any other type, ValueError for one
    that JSON does not have (nan, infinity) or that is nested too deep.
    """

    __slots__ = ("text",)

    text: str

    def __init__(self, value: Any) -> None:
        self.text = json_text(value)

    @classmethod
    def of_text(cls, text: str) -> Json:
        """The Json of a document that is written already."""
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
    """The value as a JSON document. Errors are those of `Json`."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_leaf)
    except RecursionError:
        problem = "it is nested too deep"
    except ValueError as error:
        problem = str(error)
    raise ValueError(f"this value cannot be written as JSON: {problem}")


def _leaf(value: Any) -> Any:
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

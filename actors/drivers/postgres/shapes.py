"""Lists and dicts as parameters of PostgreSQL.

The type of the parameter decides the meaning of the value.

If a list or dict is among the values, the server is asked for the types of the statement's
parameters (PREPARE), once for each text. Each such value is written as a literal with its type.
So a column whose type was changed meanwhile refuses the value and does not store something else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

from psycopg2.extensions import QuotedString

from trunkline.actors.database.binds import misplaced, of_day
from trunkline.actors.database.sql.placeholders import Style, bind
from trunkline.errors import StatementError
from trunkline.sqltext import Dialect, tokens
from trunkline.wire.documents import Json, json_text

__all__ = [
    "PREPARABLE",
    "Shape",
    "all_take",
    "described",
    "from_casts",
    "numbered",
    "shaped",
    "types_query",
]

PREPARABLE = ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "WITH", "TABLE")
"""Statements whose types PREPARE tells."""
_JSON = (114, 3802)
"""Numbers of json and jsonb in pg_type. The next two are those of bytea and record."""
_BYTES = 17
_RECORD = 2249


class Shape(NamedTuple):
    """The values that a parameter takes."""

    cast: str
    """The name of the parameter's type, as written in a cast."""
    kind: str
    """`array`, `json`, `row` (a composite type),
    `record`, `bytes`, or `value` for any other type.
    """
    element: str = ""
    """The kind of an array's elements: `json`, `row`, `bytes` or `value`."""


def numbered(body: str, count: int) -> str:
    """One statement with `$1` for each placeholder, as PREPARE takes it."""
    return bind(body, range(count), Dialect.POSTGRES, Style.NUMBER)[0]


def types_query(name: str) -> str:
    """The query for the parameters of a prepared statement. Its rows are for `described`."""
    return f"""WITH RECURSIVE found(n, kind, oid) AS (
        SELECT u.n, u.t::oid, u.t::oid
        FROM pg_catalog.pg_prepared_statements s,
            pg_catalog.unnest(s.parameter_types) WITH ORDINALITY AS u(t, n)
        WHERE s.name = '{name}'
        UNION ALL
        SELECT f.n, f.kind, d.typbasetype FROM found f
        JOIN pg_catalog.pg_type d ON d.oid = f.oid WHERE d.typtype = 'd')
    SELECT pg_catalog.format_type(f.kind, -1), f.oid::bigint, b.typcategory::text, b.typtype::text,
        coalesce(nullif(e.typbasetype, 0), e.oid)::bigint, e.typtype::text
    FROM found f JOIN pg_catalog.pg_type b ON b.oid = f.oid
    LEFT JOIN pg_catalog.pg_type e ON e.oid = b.typelem
    WHERE b.typtype <> 'd' ORDER BY f.n"""


def described(rows: Sequence[Sequence[Any]]) -> tuple[Shape, ...]:
    """The shapes of a statement's parameters, in the order of their numbers."""
    return tuple(_shape(*row) for row in rows)


def _shape(
    cast: str, oid: int, category: str, typtype: str, element: int | None, element_type: str
) -> Shape:
    """The shape of a parameter, from a row of `types_query`."""
    if category == "A" and element:
        return Shape(cast, "array", _kind(element, element_type))
    return Shape(cast, _kind(oid, typtype))


def _kind(oid: int, typtype: str) -> str:
    """The kind of a type, by its number and its `typtype`."""
    if oid in _JSON:
        return "json"
    if oid == _BYTES:
        return "bytes"
    return "record" if oid == _RECORD else "row" if typtype == "c" else "value"


_CAST = re.compile(r"\)?\s*::\s*(?P<name>\w+(?:\.\w+)?)(?P<array>\s*\[\s*\d*\s*\])?")


def from_casts(body: str, count: int) -> tuple[Shape, ...]:
    """The shapes that the text itself tells, as in `?::int[]`.

    For statements that PREPARE does not take, such as CALL.
    """
    pieces = list(tokens(numbered(body, count), Dialect.POSTGRES))
    shapes = [Shape("", "value")] * count
    for index, piece in enumerate(pieces):
        if piece.kind == "place" and piece.text != "?":
            match = _CAST.match("".join(token.text for token in pieces[index + 1 :]))
            if match is not None:
                shapes[int(piece.text[1:]) - 1] = _cast_shape(match["name"], bool(match["array"]))
    return tuple(shapes)


def _cast_shape(name: str, array: bool) -> Shape:
    kind = {"json": "json", "jsonb": "json", "bytea": "bytes"}.get(name.lower(), "value")
    return Shape(f"{name}[]", "array", kind) if array else Shape(name, kind)


class _Literal:
    """A literal with its type, for psycopg2."""

    def __init__(self, text: str, cast: str) -> None:
        self._quoted = QuotedString(text)
        self._cast = cast

    def __conform__(self, protocol: object) -> _Literal:
        """Called by psycopg2, which asks each value for an object that it can quote."""
        return self

    def prepare(self, connection: Any) -> None:
        self._quoted.prepare(connection)

    def getquoted(self) -> bytes:
        written: bytes = self._quoted.getquoted()
        return b"%s::%s" % (written, self._cast.encode())


def all_take(values: Sequence[Any], shapes: Sequence[Shape]) -> bool:
    """Whether each parameter whose value is a list, tuple or dict can take such a value."""
    return all(
        type(value) not in _CONTAINERS or _takes(value, shape)
        for value, shape in zip(values, shapes, strict=True)
    )


_CONTAINERS = frozenset((list, tuple, set, frozenset, dict))


def _takes(value: Any, shape: Shape) -> bool:
    """Whether a parameter of this shape takes this list, tuple or dict."""
    if shape.kind == "json":
        return isinstance(value, (list, tuple, Mapping))
    if shape.kind == "array":
        return isinstance(value, (list, tuple))
    return isinstance(value, tuple) and (
        shape.kind == "row" or (shape.kind == "record" and len(value) > 1)
    )


def shaped(value: Any, shape: Shape | None) -> Any:
    """A list, tuple or dict in the form that the parameter takes.

    StatementError, with advice, if the parameter takes no such value.
    """
    if shape is None:
        raise misplaced(value)
    if shape.kind == "json" and isinstance(value, (list, tuple, Mapping)):
        return _Literal(_json(value), shape.cast)
    if shape.kind == "array" and isinstance(value, (list, tuple)):
        return _Literal(_array(value, shape.element), shape.cast)
    if shape.kind == "row" and isinstance(value, tuple):
        return _Literal(_row(value), shape.cast)
    if shape.kind == "record" and isinstance(value, tuple) and len(value) > 1:
        return value
    raise misplaced(value)


def _json(value: Any) -> str:
    """A value as JSON text. StatementError for a value that JSON does not have."""
    try:
        return json_text(value)
    except (TypeError, ValueError) as error:
        problem = str(error)
    raise StatementError(problem)


def _array(value: Sequence[Any], element: str) -> str:
    if element != "json" and _is_empty(value):
        return "{}"
    return "{" + ",".join(_element(item, element) for item in value) + "}"


def _is_empty(value: Any) -> bool:
    """Whether an array has no element, however deeply it is nested."""
    return isinstance(value, (list, tuple)) and all(map(_is_empty, value))


def _element(value: Any, kind: str) -> str:
    """An element of an array, in the text form of arrays."""
    if value is None:
        return "NULL"
    if kind == "json":
        # A str is a document that is already written, as it is for a column of the type itself.
        return _quoted(value if isinstance(value, str) else _json(value))
    if kind == "row" and isinstance(value, tuple):
        return _quoted(_row(value))
    if isinstance(value, (list, tuple)):
        return _array(value, kind)
    if isinstance(value, (bytes, bytearray, memoryview)) and kind != "bytes":
        raise StatementError("an array whose elements are no bytea holds bytes here; bind text")
    return _quoted(_text(value))


def _row(value: tuple[Any, ...]) -> str:
    return "(" + ",".join("" if item is None else _quoted(_field(item)) for item in value) + ")"


def _field(value: Any) -> str:
    if isinstance(value, tuple):
        return _row(value)
    return _array(value, "value") if isinstance(value, list) else _text(value)


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _text(value: Any) -> str:
    """One value as the text that PostgreSQL reads."""
    if isinstance(value, Enum):
        return _text(value.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"\\x{bytes(value).hex()}"
    if isinstance(value, timedelta):
        return f"{value.days} days {value.seconds}.{value.microseconds:06} seconds"
    if isinstance(value, time):
        return of_day(value).isoformat()
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, Json):
        return value.text
    if isinstance(value, (Mapping, set, frozenset)):
        raise misplaced(value)
    return str(value) if isinstance(value, (str, int, Decimal)) else f"{value}"

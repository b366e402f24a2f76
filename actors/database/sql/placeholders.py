"""SQL as text: where the placeholders are, and how a Python library wants placeholders written.

Pure and without a parser (see `trunkline.sqltext`).
The server judges all other questions of syntax.

Placeholders, by dialect:

* sqlite: `?`, `?2`, and `:name`, `@name`, `$name`. The names take a mapping, or values in order
  as `?` does.
* mysql: `?`.
* postgres: `$1` and `?`. clickhouse: `?` and `$1`. A `$1` may repeat, and numbers may come in any
  order. A `?` is an operator in a statement that has a `$1`, and in a statement that is given no
  values. Beside `?` placeholders the jsonb operators are `?|`, `?&` and `??` (for `?`). `?||x`
  and `?&&x` are a placeholder before `||` and `&&`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from trunkline.errors import StatementError
from trunkline.sqltext import Dialect, Token, tokens

__all__ = [
    "Style",
    "bind",
    "check_count",
    "fences",
    "placeholders",
    "positions",
    "wanted",
]


class Style(Enum):
    """How a Python library writes a placeholder.

    A `%` in the text is doubled for FORMAT and PYFORMAT.
    """

    QMARK = "?"
    FORMAT = "%s"
    PYFORMAT = "%(p1)s"
    MAPPING = "%(trunkline_1)s"
    """For libraries that replace `%(name)s` and leave every other `%` alone (mysql-connector)."""
    NUMBER = "$1"
    """The placeholder of PostgreSQL itself."""


_TOUCHING = re.compile(r"[\w.$&'\"`]")
# Dialects in which `?` is an operator, too.
_OPERATORS = (Dialect.POSTGRES, Dialect.CLICKHOUSE)


def placeholders(sql: str, dialect: Dialect) -> list[str]:
    """The placeholders of a text as written, in order: `["$2", "$1"]`, `[":name"]`."""
    found = [token.text for token in tokens(sql, dialect) if token.kind == "place"]
    numbered = dialect in _OPERATORS and any(text != "?" for text in found)
    return [text for text in found if text != "?"] if numbered else found


def wanted(sql: str, dialect: Dialect) -> int:
    """How many values the placeholders of a text take."""
    return max(positions(placeholders(sql, dialect), dialect), default=-1) + 1


def bind(
    sql: str, binds: Sequence[Any] | Mapping[str, Any], dialect: Dialect, style: Style
) -> tuple[str, list[Any] | dict[str, Any] | None]:
    """The text and the parameters in the form that a Python library of this style takes.

    The parameters are None if there are none: then `%` stays as it is.
    StatementError if the number of values is wrong.
    """
    if isinstance(binds, Mapping):
        raise StatementError(
            f"{dialect.value} takes values in order, not by name; write ? for each"
        )
    if not binds and dialect in _OPERATORS:
        return "".join(_operators(sql, dialect)), None
    places = placeholders(sql, dialect)
    order = _order(places, len(binds), dialect)
    if not places:
        return sql, None
    text = "".join(_written(sql, dialect, style, order, numbered=places[0] != "?"))
    if style in (Style.QMARK, Style.FORMAT, Style.NUMBER):
        return text, [binds[index] for index in order]
    name = style.value[2:-3]
    return text, {f"{name}{index + 1}": value for index, value in enumerate(binds)}


def _order(places: list[str], given: int, dialect: Dialect) -> list[int]:
    """The index of the value that each placeholder takes."""
    order = positions(places, dialect)
    check_count(max(order, default=-1) + 1, given)
    if min(order, default=0) < 0:
        raise StatementError("placeholders are numbered from 1")
    return order


def positions(places: Sequence[str], dialect: Dialect) -> list[int]:
    """The index of the value that each placeholder of a text takes; -1 for `$0`."""
    if dialect is Dialect.SQLITE:
        return _sqlite_positions(places)
    return [index if text == "?" else int(text[1:]) - 1 for index, text in enumerate(places)]


def _sqlite_positions(places: Sequence[str]) -> list[int]:
    """The numbering of SQLite.

    `?` is one more than the largest number so far. A name keeps its first number.
    """
    order: list[int] = []
    names: dict[str, int] = {}
    largest = -1
    for text in places:
        if text[0] == "?" and len(text) > 1:
            index = int(text[1:]) - 1
        else:
            index = largest + 1 if text == "?" else names.setdefault(text, largest + 1)
        largest = max(largest, index)
        order.append(index)
    return order


def check_count(wanted: int, given: int) -> None:
    """StatementError unless `given` is the number of placeholders, `wanted`."""
    if wanted != given:
        places = "1 placeholder" if wanted == 1 else f"{wanted or 'no'} placeholders"
        values = "1 value was" if given == 1 else f"{given or 'no'} values were"
        raise StatementError(f"the statement has {places} and {values} given")


def fences(pieces: Sequence[Token], index: int, dialect: Dialect) -> tuple[str, str]:
    """The text to write before and behind the literal that takes a placeholder's place.

    The fences keep the neighbours out of the value: a value is never a part of a number, a name
    or a text. With a 5 for `?`, `?1` is not 51, `LIMIT?` is not a name, and `'a' ?` is not a
    longer text. A cast does not come before the sign of a number, either.
    """
    first, second = _beside(pieces, index, -1), _beside(pieces, index, 1)
    if _is_text(first, dialect) or _is_text(second, dialect):
        return " (", ") "
    if second is not None and second.text[0] == ":" and dialect is Dialect.POSTGRES:
        return "(", ")"
    before = index > 0 and _TOUCHING.match(pieces[index - 1].text[-1])
    behind = index + 1 < len(pieces) and _TOUCHING.match(pieces[index + 1].text[0])
    return " " if before else "", " " if behind else ""


def _beside(pieces: Sequence[Token], index: int, step: int) -> Token | None:
    """The nearest token on one side that is neither blank nor a comment."""
    index += step
    while 0 <= index < len(pieces) and pieces[index].separates():
        index += step
    return pieces[index] if 0 <= index < len(pieces) else None


def _is_text(piece: Token | None, dialect: Dialect) -> bool:
    """Whether the piece is a string or another placeholder.

    Some databases make one string of two neighbours.
    """
    if piece is None or piece.kind != "quoted":
        return piece is not None and piece.kind == "place"
    return piece.text[0] not in ("`" if dialect is Dialect.MYSQL else '`"')


def _operators(sql: str, dialect: Dialect) -> Iterator[str]:
    """The text of a statement without values: `??` is the operator `?`."""
    for kind, text in tokens(sql, dialect):
        yield "?" if kind == "other" and text == "??" else text


def _written(
    sql: str, dialect: Dialect, style: Style, order: list[int], numbered: bool
) -> Iterator[str]:
    indices = iter(order)
    doubled = style in (Style.FORMAT, Style.PYFORMAT)
    pieces = [*tokens(sql, dialect)]
    if numbered and dialect in _OPERATORS:
        pieces = [Token("other", "?") if piece.text == "?" else piece for piece in pieces]
    for index, (kind, text) in enumerate(pieces):
        if kind == "place":
            place = style.value.replace("1", str(next(indices) + 1))
            first, last = ("", "") if style is Style.QMARK else fences(pieces, index, dialect)
            yield f"{first}{place}{last}"
        elif kind == "other" and text == "??":
            yield "?"
        else:
            yield text.replace("%", "%%") if doubled else text

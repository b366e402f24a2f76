"""SQL as text: where its placeholders are, and how a Python library wants them written.

Pure and without a parser: a tokenizer per dialect knows strings, quoted names and comments, so that a `?`,
`%`, `$1` or `;` inside one of them is text. What is left over is the server's to judge.

Placeholders, by dialect:

* sqlite `?`, `?2`, and `:name`, `@name`, `$name`: the names take a mapping, or values in order as `?` does.
* mysql `?`.
* postgres `$1` and `?`; clickhouse `?` and `$1`. `$1` may repeat and come in any order. In a statement that
  has a `$1`, and in one that is given no values, a `?` is an operator. Beside `?` placeholders the jsonb
  operators are `?|`, `?&` and `??` (for `?`); `?||x` and `?&&x` are a placeholder before `||` and `&&`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from trunkline.errors import StatementError

__all__ = [
    "MYSQL_RUNS",
    "Dialect",
    "Style",
    "Token",
    "bind",
    "check_count",
    "placeholders",
    "positions",
    "tokens",
    "wanted",
]

_RUNS = r"/\*M?!\d*+"
MYSQL_RUNS = re.compile(_RUNS)
"""Begins a comment that MySQL or MariaDB runs as part of the statement."""


class Dialect(Enum):
    """By whose rules a text is cut into strings, names, comments and statements."""

    SQLITE = "sqlite"
    MYSQL = "mysql"
    POSTGRES = "postgres"
    CLICKHOUSE = "clickhouse"
    STANDARD = "standard"
    """SQL as its standard has it: `'...'` and `"..."` with doubled quotes, `--` and `/* */` that do not
    nest."""


class Style(Enum):
    """How a Python library writes a placeholder. `%` in the text is doubled for it, but for MAPPING."""

    QMARK = "?"
    FORMAT = "%s"
    PYFORMAT = "%(p1)s"
    MAPPING = "%(trunkline_1)s"
    """For libraries that replace `%(name)s` and leave every other `%` alone (mysql-connector)."""
    NUMBER = "$1"
    """PostgreSQL's own."""


class Token(NamedTuple):
    kind: str
    """`quoted` (strings, names, comments), `word`, `place` (a placeholder), `end` (`;`) or `other`."""
    text: str


_STRING = r"'[^']*+(?:'|\Z)"  # a doubled quote is simply the next string
_NAME = r'"[^"]*+(?:"|\Z)'
_ESCAPED = r"'(?:[^'\\]++|\\.)*+\\?(?:'|\Z)"
_ESCAPED_NAME = r'"(?:[^"\\]++|\\.)*+\\?(?:"|\Z)'
# PostgreSQL's E'...': a doubled quote stays inside, and after a line end the next quote goes on with it
_E_BODY = r"(?:[^'\\]++|\\.|'')*+"
_E_GAP = r"'(?:[^\S\n\r]|--[^\n\r]*+)*+[\n\r](?:\s|--[^\n\r]*+(?:[\n\r]|\Z))*+'"
_E_STRING = rf"[eE]'{_E_BODY}(?:{_E_GAP}{_E_BODY})*+\\?(?:'|\Z)"
_TICKS = r"`[^`]*+(?:`|\Z)"
_DASHES = r"--[^\n]*+"
_BLOCK = r"/\*.*?(?:\*/|\Z)"
_DOLLARS = r"\$(?P<tag>(?:[^\W\d]\w*+)?)\$.*?(?:\$(?P=tag)\$|\Z)"
_NUMBER = r"\d[\w.]*+"
_WORD = r"[^\W\d][\w$]*+"


def _compiled(quoted: Sequence[str], place: str, other: str) -> re.Pattern[str]:
    kinds = {"quoted": "|".join(quoted), "other": other, "place": place, "word": _WORD, "end": ";"}
    return re.compile("|".join(f"(?P<{kind}>{rule})" for kind, rule in kinds.items()) + r"|\s++|.", re.DOTALL)


_RULES = {
    Dialect.SQLITE: _compiled(
        (_STRING, _NAME, _TICKS, r"\[[^\]]*+(?:\]|\Z)", _DASHES, _BLOCK),
        r"\?\d{1,9}(?!\d)|\?|[:@$][\w$]++",
        rf"{_NUMBER}|::",
    ),
    Dialect.MYSQL: _compiled(
        # `--` is a comment only before a blank: 5--1 is 6
        (_ESCAPED, _ESCAPED_NAME, _TICKS, r"--(?=\s|\Z)[^\n]*+", r"\#[^\n]*+", rf"(?!{_RUNS}){_BLOCK}"),
        r"\?",
        # what a comment that the server runs holds is part of the statement
        rf"{_NUMBER}|@[\w$@]++|{_RUNS}",
    ),
    Dialect.POSTGRES: _compiled(
        (_STRING, _E_STRING, _NAME, _DOLLARS, r"--[^\n\r]*+", r"/\*"),
        r"\$\d{1,9}(?!\d)|\?",
        rf"{_NUMBER}|\?\?|\?\|(?!\|)|\?&(?!&)|@@|@\?",
    ),
    Dialect.CLICKHOUSE: _compiled(
        (
            _ESCAPED,
            _ESCAPED_NAME,
            r"`(?:[^`\\]++|\\.)*+\\?(?:`|\Z)",
            _DOLLARS,
            _DASHES,
            r"\#[ !][^\n]*+",
            _BLOCK,
        ),
        r"\$\d{1,9}(?!\d)|\?",
        rf"{_NUMBER}|\?\?",
    ),
    Dialect.STANDARD: _compiled((_STRING, _NAME, _DASHES, _BLOCK), r"\?", _NUMBER),
}
_NESTING = re.compile(r"/\*|\*/")
# where `?` is an operator too
_OPERATORS = (Dialect.POSTGRES, Dialect.CLICKHOUSE)


def tokens(sql: str, dialect: Dialect) -> Iterator[Token]:
    """The text in pieces; together they are `sql` again. What is not terminated goes on to the end."""
    rule = _RULES[dialect]
    position = 0
    while position < len(sql):
        match = rule.match(sql, position)
        assert match is not None  # the last alternative takes any character
        position = match.end()
        if match.group() == "/*":
            position = _nested_end(sql, position)
        yield Token(_kind(match), sql[match.start() : position])


def _kind(match: re.Match[str]) -> str:
    # not lastgroup: in a dollar string that is the tag's
    return next((kind for kind in ("quoted", "word", "place", "end") if match[kind] is not None), "other")


def _nested_end(sql: str, position: int) -> int:
    depth = 1
    for match in _NESTING.finditer(sql, position):
        depth += 1 if match.group() == "/*" else -1
        if not depth:
            return match.end()
    return len(sql)


def placeholders(sql: str, dialect: Dialect) -> list[str]:
    """The placeholders of a text as written, in order: `["?", "?"]`, `["$2", "$1"]`, `[":name"]`."""
    found = [token.text for token in tokens(sql, dialect) if token.kind == "place"]
    numbered = dialect in _OPERATORS and any(text != "?" for text in found)
    return [text for text in found if text != "?"] if numbered else found


def wanted(sql: str, dialect: Dialect) -> int:
    """How many values the placeholders of a text take."""
    return max(positions(placeholders(sql, dialect), dialect), default=-1) + 1


def bind(
    sql: str, binds: Sequence[Any] | Mapping[str, Any], dialect: Dialect, style: Style
) -> tuple[str, list[Any] | dict[str, Any] | None]:
    """The text and the parameters as a Python library of this style takes them.

    The parameters are None when there are none: then `%` stays as it is. StatementError when
    the number of values is wrong.
    """
    if isinstance(binds, Mapping):
        raise StatementError(f"{dialect.value} takes values in order, not by name; write ? for each")
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
    """The index of the value that each of a text's placeholders takes, -1 for `$0`."""
    if dialect is Dialect.SQLITE:
        return _sqlite_positions(places)
    return [index if text == "?" else int(text[1:]) - 1 for index, text in enumerate(places)]


def _sqlite_positions(places: Sequence[str]) -> list[int]:
    """SQLite's own numbering: `?` is one more than the largest so far, a name keeps its first number."""
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
    """StatementError when a statement with `wanted` placeholders was given another number of values."""
    if wanted != given:
        places = "1 placeholder" if wanted == 1 else f"{wanted or 'no'} placeholders"
        values = "1 value was" if given == 1 else f"{given or 'no'} values were"
        raise StatementError(f"the statement has {places} and {values} given")


def _operators(sql: str, dialect: Dialect) -> Iterator[str]:
    for kind, text in tokens(sql, dialect):
        yield "?" if kind == "other" and text == "??" else text


def _written(sql: str, dialect: Dialect, style: Style, order: list[int], numbered: bool) -> Iterator[str]:
    indices = iter(order)
    doubled = style in (Style.FORMAT, Style.PYFORMAT)
    for kind, text in tokens(sql, dialect):
        if kind == "place" and not (numbered and text == "?" and dialect in _OPERATORS):
            yield style.value.replace("1", str(next(indices) + 1))
        elif kind == "other" and text == "??":
            yield "?"
        else:
            yield text.replace("%", "%%") if doubled else text

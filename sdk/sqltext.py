"""SQL as text: the tokens in which a database reads a statement.

Pure; used by programs and workers.

There is no parser. A tokenizer for each dialect knows strings, quoted names and comments, so that
a `?`, `%`, `$1`, `;` or a word inside one of them is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

__all__ = ["MYSQL_RUNS", "Dialect", "Token", "tokens"]

_RUNS = r"/\*M?!\d*+"
MYSQL_RUNS = re.compile(_RUNS)
"""Begins a comment that MySQL or MariaDB runs as part of the statement."""


class Dialect(Enum):
    """The rules by which a text is cut into strings, names, comments and statements."""

    SQLITE = "sqlite"
    MYSQL = "mysql"
    POSTGRES = "postgres"
    CLICKHOUSE = "clickhouse"
    STANDARD = "standard"
    """Standard SQL: `'...'` and `"..."` with doubled quotes, `--`, and `/* */` that do not nest."""


class Token(NamedTuple):
    """A piece of a text."""

    kind: str
    """`quoted` (strings, names, comments), `word`, `place` (a placeholder), `end` (`;`) or
    `other`.
    """
    text: str

    def separates(self) -> bool:
        """Whether the token is white space or a comment."""
        return self.text.isspace() or (self.kind == "quoted" and self.text.startswith(_COMMENTS))


_COMMENTS = ("--", "/*", "//", "#")
# A doubled quote is read as the beginning of the next string.
_STRING = r"'[^']*+(?:'|\Z)"
_NAME = r'"[^"]*+(?:"|\Z)'
_ESCAPED = r"'(?:[^'\\]++|\\.)*+\\?(?:'|\Z)"
_ESCAPED_NAME = r'"(?:[^"\\]++|\\.)*+\\?(?:"|\Z)'
# PostgreSQL's E'...': a doubled quote stays inside. After a line end the string goes on at the
# next quote.
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
    return re.compile(
        "|".join(f"(?P<{kind}>{rule})" for kind, rule in kinds.items()) + r"|\s++|.", re.DOTALL
    )


_RULES = {
    Dialect.SQLITE: _compiled(
        (_STRING, _NAME, _TICKS, r"\[[^\]]*+(?:\]|\Z)", _DASHES, _BLOCK),
        r"\?\d{1,9}(?!\d)|\?|[:@$][\w$]++",
        rf"{_NUMBER}|::",
    ),
    Dialect.MYSQL: _compiled(
        # `--` is a comment only before a blank: 5--1 is 6.
        (
            _ESCAPED,
            _ESCAPED_NAME,
            _TICKS,
            r"--(?=\s|\Z)[^\n]*+",
            r"\#[^\n]*+",
            rf"(?!{_RUNS}){_BLOCK}",
        ),
        r"\?",
        # The words inside a comment that the server runs are part of the statement.
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
            r"//[^\n]*+",
            r"\#[ !][^\n]*+",
            _BLOCK,
        ),
        r"\$\d{1,9}(?!\d)|\?",
        rf"{_NUMBER}|\?\?",
    ),
    Dialect.STANDARD: _compiled((_STRING, _NAME, _DASHES, _BLOCK), r"\?", _NUMBER),
}
_NESTING = re.compile(r"/\*|\*/")


def tokens(sql: str, dialect: Dialect) -> Iterator[Token]:
    """The text in tokens, which together are `sql` again.

    A string or comment without an end reaches to the end of the text.
    """
    rule = _RULES[dialect]
    position = 0
    while position < len(sql):
        match = rule.match(sql, position)
        # The last alternative takes any character.
        assert match is not None
        position = match.end()
        if match.group() == "/*":
            position = _nested_end(sql, position)
        yield Token(_kind(match), sql[match.start() : position])


def _kind(match: re.Match[str]) -> str:
    # `lastgroup` would be the tag's group in a dollar string.
    return next(
        (kind for kind in ("quoted", "word", "place", "end") if match[kind] is not None), "other"
    )


def _nested_end(sql: str, position: int) -> int:
    """The position after a comment of PostgreSQL, in which comments nest.

    `position`: after the first `/*`.
    """
    depth = 1
    for match in _NESTING.finditer(sql, position):
        depth += 1 if match.group() == "/*" else -1
        if not depth:
            return match.end()
    return len(sql)

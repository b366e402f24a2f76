"""A statement's text: as psycopg2 takes it, whether a cursor can be declared for it, and for many rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from trunkline.actors.drivers.postgres_errors import nul
from trunkline.actors.sql import Dialect, Style, Token, bind, check_count, placeholders, tokens, wanted
from trunkline.actors.statements import Statement, split
from trunkline.errors import StatementError

__all__ = ["Bulk", "Text", "bulk", "plain", "read"]

_LONGEST_KEPT = 10_000
_CHANGES = ("INSERT", "UPDATE", "DELETE", "MERGE")


@dataclass(frozen=True, slots=True)
class Text:
    """A text, read once."""

    statements: tuple[Statement, ...]
    formatted: str
    """With `%s` for each placeholder, where there are values; without the `;` at the end."""
    order: tuple[int, ...] | None
    """The value that each `%s` takes; None: there are no values."""

    @property
    def one(self) -> Statement:
        return self.statements[0]

    @property
    def transactional(self) -> bool:
        return any(statement.transaction for statement in self.statements)

    @property
    def declarable(self) -> bool:
        """Whether DECLARE takes it: a query that changes nothing by its own words."""
        if len(self.statements) != 1:
            return False
        words = self.one.words
        if self.one.verb not in ("SELECT", "VALUES", "TABLE") or "INTO" in words:
            return False
        # what stands in the parentheses of a WITH is not among the statement's words
        return self.one.keyword != "WITH" or not any(
            token.kind == "word" and token.text.upper() in _CHANGES
            for token in tokens(self.one.text, Dialect.POSTGRES)
        )

    def values(self, given: Sequence[Any]) -> list[Any] | None:
        return None if self.order is None else [given[index] for index in self.order]


def read(sql: str, given: int) -> Text:
    """A text that is given so many values. StatementError for what cannot be sent."""
    return _read(sql, given) if len(sql) <= _LONGEST_KEPT else _read.__wrapped__(sql, given)


@lru_cache(maxsize=256)
def _read(sql: str, given: int) -> Text:
    if "\0" in sql:
        raise nul()  # psycopg2 would send what stands before it
    statements = tuple(split(sql, Dialect.POSTGRES))
    for statement in statements:
        if statement.keyword == "COPY" and not {"STDIN", "STDOUT"}.isdisjoint(statement.words):
            raise StatementError(
                "COPY FROM STDIN and TO STDOUT cannot be had here; use executemany to write and query to read"
            )
    if given and len(statements) > 1:
        raise StatementError("several statements in one text take no values; run them one by one")
    body = statements[0].text if len(statements) == 1 else sql
    text, order = bind(body, range(given), Dialect.POSTGRES, Style.FORMAT)
    if given and not isinstance(order, list):
        raise StatementError("the statement has no placeholders")  # bind has refused it already
    return Text(statements, text, tuple(order) if isinstance(order, list) else None)


def plain(statement: Statement) -> str:
    """One statement of several, which have no values."""
    return bind(statement.text, (), Dialect.POSTGRES, Style.FORMAT)[0]


@dataclass(frozen=True, slots=True)
class Bulk:
    """A statement for many rows."""

    formatted: str
    """For `execute_batch`; with a template, for `execute_values`: `%s` alone stands for all rows."""
    order: tuple[int, ...]
    template: str | None
    """The parentheses after VALUES."""
    upsert: bool
    """Two rows with the same key cannot be in one such statement."""

    def check(self, rows: Sequence[Sequence[Any]]) -> None:
        if any(issubclass(kind, Mapping) for kind in set(map(type, rows))):
            raise StatementError("postgres takes values in order, not by name; write ? for each")
        for length in set(map(len, rows)):
            check_count(max(self.order, default=-1) + 1, length)

    @property
    def straight(self) -> bool:
        """The values of a row are taken as they stand."""
        return self.order == tuple(range(len(self.order)))


@lru_cache(maxsize=64)
def bulk(sql: str) -> Bulk:
    """How a statement is run for many rows. StatementError for several statements, and for COPY."""
    count = wanted(sql, Dialect.POSTGRES)
    text = read(sql, count)
    if len(text.statements) != 1 or text.transactional:
        raise StatementError("executemany takes one statement, with a placeholder for each value of a row")
    upsert = "CONFLICT" in text.one.words
    parts = _insert(text.one) if count else None
    if parts is None:
        return Bulk(text.formatted, text.order or (), None, upsert)
    head, values, tail = parts
    template, order = bind(values, range(count), Dialect.POSTGRES, Style.FORMAT)
    assert isinstance(order, list)
    return Bulk(f"{_quiet(head)}%s{_quiet(tail)}", tuple(order), template, upsert)


def _quiet(text: str) -> str:
    return bind(text, (), Dialect.POSTGRES, Style.FORMAT)[0].replace("%", "%%")


def _insert(statement: Statement) -> tuple[str, str, str] | None:
    """`INSERT ... VALUES`, `(...)` and what is behind, where all placeholders are in the parentheses and they
    are the only ones."""
    if statement.keyword != "INSERT":
        return None
    found = list(tokens(statement.text, Dialect.POSTGRES))
    begin = _after_values(found)
    if begin is None:
        return None
    end = _closing(found, begin)
    head, values, tail = map(_joined, (found[:begin], found[begin:end], found[end:]))
    several = next((t.text for t in found[end:] if not _blank(t)), "") == ","
    elsewhere = any(placeholders(part, Dialect.POSTGRES) for part in (head, tail))
    inside = placeholders(values, Dialect.POSTGRES) == placeholders(statement.text, Dialect.POSTGRES)
    return None if several or elsewhere or not inside else (head, values, tail)


def _joined(found: Sequence[Token]) -> str:
    return "".join(token.text for token in found)


def _after_values(found: list[Token]) -> int | None:
    """The index of the parenthesis after the VALUES that is not in parentheses itself."""
    depth = 0
    for index, token in enumerate(found):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 and token.kind == "word" and token.text.upper() == "VALUES":
            begin = next((at for at in range(index + 1, len(found)) if not _blank(found[at])), None)
            return begin if begin is not None and found[begin].text == "(" else None
    return None


def _closing(found: list[Token], begin: int) -> int:
    depth = 0
    for index in range(begin, len(found)):
        depth += {"(": 1, ")": -1}.get(found[index].text, 0)
        if depth == 0:
            return index + 1
    return len(found)


def _blank(token: Token) -> bool:
    return token.text.isspace() or token.text.startswith(("--", "/*"))

"""A statement's text: as psycopg2 takes it, and whether a cursor can be declared for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from trunkline.actors.database.sql.placeholders import Style, bind
from trunkline.actors.database.sql.statements import Statement, split
from trunkline.actors.drivers.postgres.errors import nul
from trunkline.errors import StatementError
from trunkline.sqltext import Dialect, tokens

__all__ = ["LONGEST_KEPT", "Text", "plain", "read"]

LONGEST_KEPT = 10_000
"""Characters of a text that is remembered as it was read."""
_CHANGES = ("INSERT", "UPDATE", "DELETE", "MERGE")


@dataclass(frozen=True, slots=True)
class Text:
    """A text, read once."""

    statements: tuple[Statement, ...]
    body: str
    """As it was given; without the `;` at the end where it is one statement."""
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
    return _read(sql, given) if len(sql) <= LONGEST_KEPT else _read.__wrapped__(sql, given)


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
        if statement.keyword == "LISTEN":
            raise StatementError(
                "LISTEN was refused: a database connection has no read() that could give the notifications;"
                " ask a table in turns, or let the writer use a message broker's address"
            )
    if given and len(statements) > 1:
        raise StatementError("several statements in one text take no values; run them one by one")
    body = statements[0].text if len(statements) == 1 else sql
    text, order = bind(body, range(given), Dialect.POSTGRES, Style.FORMAT)
    if given and not isinstance(order, list):
        raise StatementError("the statement has no placeholders")  # bind has refused it already
    return Text(statements, body, text, tuple(order) if isinstance(order, list) else None)


def plain(statement: Statement) -> str:
    """One statement of several, which have no values."""
    return bind(statement.text, (), Dialect.POSTGRES, Style.FORMAT)[0]

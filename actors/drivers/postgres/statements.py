"""The text of a statement, as psycopg2 takes it and as a cursor is declared for it."""

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
"""Longest text whose reading is remembered, in characters."""
_CHANGES = ("INSERT", "UPDATE", "DELETE", "MERGE")


@dataclass(frozen=True, slots=True)
class Text:
    """A text, read once."""

    statements: tuple[Statement, ...]
    body: str
    """The text as given; for a single statement without the `;` at the end."""
    formatted: str
    """The text with `%s` for each placeholder if there are values. Without the `;` at the end."""
    order: tuple[int, ...] | None
    """The index of the value that each `%s` takes; None without values."""

    @property
    def one(self) -> Statement:
        return self.statements[0]

    @property
    def transactional(self) -> bool:
        return any(statement.transaction for statement in self.statements)

    @property
    def declarable(self) -> bool:
        """Whether DECLARE takes the text: one query that does not change data by its own words."""
        if len(self.statements) != 1:
            return False
        words = self.one.words
        if self.one.verb not in ("SELECT", "VALUES", "TABLE") or "INTO" in words:
            return False
        # Words in the parentheses of a WITH are not among the statement's words.
        return self.one.keyword != "WITH" or not any(
            token.kind == "word" and token.text.upper() in _CHANGES
            for token in tokens(self.one.text, Dialect.POSTGRES)
        )

    def values(self, given: Sequence[Any]) -> list[Any] | None:
        """The values in the order of the `%s`; None without values."""
        return None if self.order is None else [given[index] for index in self.order]


def read(sql: str, given: int) -> Text:
    """Read a text that is given `given` values. StatementError for a text that cannot be sent."""
    return _read(sql, given) if len(sql) <= LONGEST_KEPT else _read.__wrapped__(sql, given)


@lru_cache(maxsize=256)
def _read(sql: str, given: int) -> Text:
    """Read a text.

    Refuses statements that need more than this protocol offers here: COPY of the client, LISTEN.
    """
    if "\0" in sql:
        # psycopg2 would send only the part before the NUL.
        raise nul()
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
        # `bind` has refused this case already.
        raise StatementError("the statement has no placeholders")
    return Text(statements, body, text, tuple(order) if isinstance(order, list) else None)


def plain(statement: Statement) -> str:
    """One statement of several, without values, as psycopg2 takes it."""
    return bind(statement.text, (), Dialect.POSTGRES, Style.FORMAT)[0]

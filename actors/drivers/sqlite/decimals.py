"""Decimals that a column of SQLite would round.

If a column is declared as a number, SQLite turns text that looks like a
number into a number and keeps 15 digits of it. A Decimal with more digits
is refused in such a column, because otherwise no caller would learn of
the change. A column that is declared as text holds the Decimal unchanged.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any

from trunkline.errors import StatementError
from trunkline.sqltext import Dialect, Token, tokens

__all__ = ["LongDecimal", "check_decimals", "long_decimals", "written"]

_KEPT = 15
"""Digits of a text that SQLite keeps when it makes a floating-point number of the text."""
_ROUNDS = re.compile(r"INT|REAL|FLOA|DOUB")
_KEEPS = re.compile(r"CHAR|CLOB|TEXT|BLOB|\A\Z")
_ENDS_SET = ("WHERE", "FROM", "RETURNING", "ORDER", "LIMIT")


_ROWID = dict.fromkeys(("rowid", "_rowid_", "oid"), "INTEGER")
"""Names of the row number in a table without columns of these names."""


class LongDecimal(str):
    """The text of a Decimal that a number column may round."""

    __slots__ = ()


_long = 0
"""How many LongDecimals this process has written."""


def long_decimals() -> int:
    """How many LongDecimals were written so far."""
    return _long


def written(value: Decimal) -> str:
    """A Decimal as the text that SQLite stores."""
    text = str(value)
    if len(text) > _KEPT and len("".join(map(str, value.as_tuple().digits)).rstrip("0")) > _KEPT:
        global _long
        _long += 1
        return LongDecimal(text)
    return text


def check_decimals(
    connection: sqlite3.Connection, sql: str, values: Sequence[Any] | Mapping[str, Any]
) -> None:
    """StatementError if a value of a statement is a LongDecimal that its column would round.

    `values`: a value for each placeholder of the text, or a mapping for the names.
    """
    given = values.values() if isinstance(values, Mapping) else values
    if not any(type(value) is LongDecimal for value in given):
        return
    plan = _plan(sql)
    if plan is None:
        return
    columns = _columns(connection, plan.schema, plan.table)
    for place, target in plan.places:
        value = values[place[1:]] if isinstance(values, Mapping) else values[int(place)]
        for name in plan.columns_of(target, columns) if type(value) is LongDecimal else ():
            declared = columns.get(name.lower()) or _ROWID.get(name.lower())
            if declared and _is_rounded(connection, value, declared):
                raise StatementError(
                    f"the column {name} is declared {declared}, and SQLite would round {value} there to"
                    f" {_KEPT} digits: declare it TEXT, or bind float(value) where that will do"
                )


def _is_rounded(connection: sqlite3.Connection, text: str, declared: str) -> bool:
    """Whether a column with this declared type changes the number in `text`."""
    kind = declared.upper()
    integers = "INT" in kind
    if not integers and _KEEPS.search(kind):
        return False
    floats = not integers and _ROUNDS.search(kind)
    if not floats and re.fullmatch(r"[+-]?\d+", text) and -(1 << 63) <= int(text) < 1 << 63:
        return False
    (found,) = connection.execute("SELECT CAST(? AS REAL)", (str(text),)).fetchone()
    return Decimal(repr(found)) != Decimal(text)


def _columns(connection: sqlite3.Connection, schema: str | None, table: str) -> dict[str, str]:
    """The declared type of each column that can be written, by its name in lower case.

    The columns are in the order of the table.
    """
    where = "" if schema is None else ", ?"
    given = [table] if schema is None else [table, schema]
    ask = f"SELECT name, type FROM pragma_table_xinfo(?{where}) WHERE hidden = 0"
    found = {name.lower(): kind for name, kind in connection.execute(ask, given)}
    if any(kind.upper() == "ANY" for kind in found.values()) and _is_strict(connection, table):
        return {name: "" if kind.upper() == "ANY" else kind for name, kind in found.items()}
    return found


def _is_strict(connection: sqlite3.Connection, table: str) -> bool:
    """Whether the table is STRICT.

    In such a table columns of the type ANY store values unchanged.
    """
    ask = "SELECT max(strict) FROM pragma_table_list WHERE lower(name) = lower(?)"
    return bool(connection.execute(ask, (table,)).fetchone()[0])


# Finding the columns that a statement writes to.

_ANY = -1
"""The value goes to some column, which the text does not name plainly."""


@dataclass(slots=True)
class _Plan:
    """The columns in which a write stores its values."""

    table: str
    schema: str | None = None
    columns: list[str] = field(default_factory=list)
    """The columns that an INSERT names; empty for all columns of the table."""
    places: list[tuple[str, int | list[str]]] = field(default_factory=list)
    """An entry for each placeholder whose value is stored. First its name, or its number from 0.
    Then the index of its column, or the names of the columns that it may be for.
    """

    def columns_of(self, target: int | list[str], all_columns: Iterable[str]) -> list[str]:
        """The names of the columns that a target of `places` stands for."""
        if isinstance(target, list):
            return target
        named = self.columns or list(all_columns)
        return named if target == _ANY else named[target : target + 1]


@lru_cache(maxsize=64)
def _plan(sql: str) -> _Plan | None:
    """The plan of a statement; None for a statement that does not write values."""
    return _Reader(sql).plan()


class _Reader:
    """Reads the tokens of a statement once, from left to right."""

    def __init__(self, sql: str) -> None:
        pieces = [
            piece
            for piece in tokens(sql, Dialect.SQLITE)
            if not piece.text.isspace() and not piece.text.startswith(("--", "/*"))
        ]
        self._pieces = pieces
        self._at = 0
        self._places = 0

    def plan(self) -> _Plan | None:
        """The plan of the statement; None for a statement that does not write values."""
        before = list(self._up_to("INTO", "UPDATE", "DELETE"))
        word = self._word()
        if word not in ("INTO", "UPDATE"):
            return None
        self._at += 1
        if self._word() == "OR":
            self._at += 2
        first = self._name()
        plan = _Plan(first)
        if self._text() == ".":
            self._at += 1
            plan.schema, plan.table = first, self._name()
        plan.places += [(place, _ANY) for place in before]
        if word == "INTO":
            self._insert(plan)
        else:
            list(self._up_to("SET"))
        self._assignments(plan)
        return plan

    def _insert(self, plan: _Plan) -> None:
        """Read the columns and values of an INSERT, up to the SET of an upsert."""
        if self._word() == "AS":
            self._at += 2
        if self._text() == "(":
            plan.columns = self._names()
        if self._word() != "VALUES":
            plan.places += [(place, _ANY) for place in self._up_to("CONFLICT", "RETURNING")]
        else:
            self._at += 1
            while self._text() == "(":
                self._row(plan)
                self._at += self._text() == ","
        list(self._up_to("SET", "RETURNING"))

    def _row(self, plan: _Plan) -> None:
        """Read one row of VALUES."""
        depth = index = 0
        while self._at < len(self._pieces):
            piece = self._take()
            if piece.kind == "place":
                plan.places.append((self._place(piece), index))
            elif piece.text == "(":
                depth += 1
            elif piece.text == ")":
                depth -= 1
                if not depth:
                    return
            elif piece.text == "," and depth == 1:
                index += 1

    def _assignments(self, plan: _Plan) -> None:
        """Read `SET a = ?, (b, c) = (?, ?)` up to its end."""
        if self._word() != "SET":
            return
        self._at += 1
        while self._at < len(self._pieces) and self._word() not in _ENDS_SET:
            target = self._names() if self._text() == "(" else [self._name()]
            for place in self._up_to(*_ENDS_SET, ","):
                plan.places.append((place, target))
            self._at += self._text() == ","

    # pieces

    def _up_to(self, *ends: str) -> Iterator[str]:
        """Go on to one of these words or signs outside of parentheses.

        Yields the placeholders on the way.
        """
        depth = 0
        while self._at < len(self._pieces):
            if not depth and (self._word() in ends or self._text() in ends):
                return
            piece = self._take()
            depth += {"(": 1, ")": -1}.get(piece.text, 0)
            if piece.kind == "place":
                yield self._place(piece)

    def _place(self, piece: Token) -> str:
        """The name of a placeholder with the sign before it, or its number."""
        self._places += 1
        return piece.text if piece.text[0] in ":@$" else str(self._places - 1)

    def _take(self) -> Token:
        self._at += 1
        return self._pieces[self._at - 1]

    def _text(self) -> str:
        return self._pieces[self._at].text if self._at < len(self._pieces) else ""

    def _word(self) -> str:
        """The next word in upper case; "" if the next token is not a word."""
        here = self._pieces[self._at] if self._at < len(self._pieces) else None
        return here.text.upper() if here is not None and here.kind == "word" else ""

    def _names(self) -> list[str]:
        """The names of the list in parentheses that comes next."""
        self._at += 1
        found = []
        while self._text() not in (")", ""):
            found.append(self._name())
            self._at += self._text() == ","
        self._at += 1
        return found

    def _name(self) -> str:
        """The name that comes next, without quotes."""
        text = self._take().text if self._at < len(self._pieces) else ""
        while text[:1] in ('"', "'", "`") and self._text()[:1] == text[:1]:
            # A doubled quote.
            text += self._take().text
        closing = {"[": "]"}.get(text[:1], text[:1])
        if text[:1] in ('"', "'", "`", "[") and len(text) > 1:
            return text[1:-1].replace(closing * 2, closing)
        return text

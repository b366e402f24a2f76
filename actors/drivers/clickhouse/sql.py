"""The request that a text makes to ClickHouse, read once.

The native protocol takes the rows of an INSERT as blocks, never from the text. A server that is
sent `INSERT INTO t VALUES (1)` waits for rows. So this module takes `VALUES` apart. If all values
are placeholders and literals, they become a block. If an expression is among them, the statement
becomes `INSERT ... SELECT`, and the server computes the expression.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Any

from trunkline.actors.database.sql.placeholders import Style, bind, check_count, wanted
from trunkline.actors.database.sql.statements import split
from trunkline.actors.drivers.clickhouse.literals import literal, unescaped
from trunkline.errors import StatementError
from trunkline.sqltext import Dialect, Token, tokens
from trunkline.wire.table import Table

__all__ = ["Insert", "rendered", "statement"]

_LONGEST_KEPT = 10_000
# Forms of numbers whose meaning needs no server.
_WHOLE = re.compile(r"\d{1,80}\Z")
_FRACTION = re.compile(r"\d+\.\d*\Z")
_POWER = re.compile(r"\d+(?:\.\d*)?[eE]\d+\Z")


@dataclass(frozen=True, slots=True)
class _Place:
    """A placeholder: the index of its value."""

    index: int


class _Expression(Exception):
    """The value is not a literal, so the server must compute it."""


@dataclass(frozen=True, slots=True)
class Insert:
    """An INSERT whose rows are sent as blocks."""

    head: str
    """The text up to VALUES, including VALUES."""
    rows: tuple[tuple[Any, ...], ...] = ()
    """The rows of the text, with `_Place` for each placeholder. Empty if the rows come as a list.
    """
    wanted: int = 0
    """How many values the placeholders take."""
    order: tuple[int, ...] | None = field(default=None)
    """For a single row of placeholders only: the index of each placeholder's value."""

    def filled(self, binds: Sequence[Any]) -> list[Sequence[Any]]:
        """The rows with these values. StatementError for a wrong number of values."""
        check_count(self.wanted, len(binds))
        return [[_filled(item, binds) for item in row] for row in self.rows]

    def filled_many(self, rows: Sequence[Any], before: int = 0) -> Sequence[Any]:
        """The rows of an `executemany`, or a part of them.

        `before`: how many rows came before this part. A Table stays a Table if possible.
        """
        if not self.rows:
            return rows
        if type(rows) is Table:
            counts = [len(rows.columns)]
        elif any(issubclass(kind, Mapping) for kind in set(map(type, rows))):
            raise StatementError(
                "clickhouse takes values in order, not by name; or leave out what follows VALUES"
            )
        else:
            counts = [*map(len, rows)]
        if set(counts) - {self.wanted}:
            row = next(index for index, count in enumerate(counts) if count != self.wanted)
            try:
                check_count(self.wanted, counts[row])
            except StatementError as error:
                raise StatementError(f"row {before + row + 1}: {error}") from None
        if self.order == tuple(range(self.wanted)):
            return rows
        return [filled for row in rows for filled in self.filled(row)]


def _filled(item: Any, binds: Sequence[Any]) -> Any:
    """One item with its values. An item may be a list or tuple with placeholders inside."""
    if type(item) is _Place:
        return binds[item.index]
    if type(item) in (list, tuple):
        return type(item)(_filled(part, binds) for part in item)
    return item


def statement(sql: str) -> str | Insert:
    """The only statement of a text: a text to send, or an INSERT of rows.

    StatementError unless there is exactly one statement, and for a statement that would wait for
    data that this protocol cannot send.
    """
    return _statement(sql) if len(sql) <= _LONGEST_KEPT else _statement.__wrapped__(sql)


def rendered(text: str, binds: Sequence[Any] | Mapping[str, Any], zone: tzinfo) -> str:
    """The text with its values in it. `zone`: the server's zone, for datetimes without a zone."""
    if isinstance(binds, Mapping) or len(text) > _LONGEST_KEPT:
        template, names = _template.__wrapped__(
            text, binds if isinstance(binds, Mapping) else len(binds)
        )
    else:
        template, names = _template(text, len(binds))
    if names is None:
        return template
    return template % {name: literal(value, zone) for name, value in zip(names, binds, strict=True)}


@lru_cache(maxsize=256)
def _template(text: str, given: int | Mapping[str, Any]) -> tuple[str, list[str] | None]:
    """The text for `%`, and the name of each value; None if the text takes no values."""
    binds = given if isinstance(given, Mapping) else range(given)
    template, names = bind(text, binds, Dialect.CLICKHOUSE, Style.PYFORMAT)
    return template, None if names is None else list(names)


@lru_cache(maxsize=256)
def _statement(sql: str) -> str | Insert:
    """See `statement`."""
    found = split(sql, Dialect.CLICKHOUSE)
    if len(found) != 1:
        raise StatementError(
            "ClickHouse runs one statement at a time: give each one its own exec"
            if found
            else "there is no statement in this text"
        )
    one = found[0]
    return _insert(one.text) if one.verb == "INSERT" else one.text


def _insert(text: str) -> str | Insert:
    """An INSERT of rows, or the text itself if it inserts the rows of a query."""
    pieces = [*tokens(text, Dialect.CLICKHOUSE)]
    depth = 0
    for index, piece in enumerate(pieces):
        depth += {"(": 1, ")": -1}.get(piece.text, 0)
        word = piece.text.upper() if piece.kind == "word" else ""
        if word == "SELECT" or (not depth and word in ("WATCH", "WITH") and index):
            return text
        if depth or word not in ("VALUES", "FORMAT", "INFILE"):
            continue
        if word == "VALUES":
            return _values(pieces[: index + 1], pieces[index + 1 :])
        rest = [piece.text.upper() for piece in _plain(pieces[index + 1 :])]
        if word == "INFILE" or len(rest) != 1:
            raise StatementError(
                "ClickHouse's native protocol takes no data in a FORMAT and no file: write INSERT INTO table"
                " VALUES and give the rows as a list"
            )
        return Insert(_joined(pieces[:index]) + " VALUES")
    return Insert(text + " VALUES")


def _values(head: list[Token], tail: list[Token]) -> str | Insert:
    """An INSERT of the rows after VALUES, or the text of an `INSERT ...

    SELECT` if a value needs the server.
    """
    rows = [*_rows(_plain(tail, spaces=True))]
    text = _joined(head)
    if not rows:
        return Insert(text)
    needed = wanted(_joined(tail), Dialect.CLICKHOUSE)
    places = _Places()
    try:
        parsed = tuple(tuple(_Literal(item, places).whole() for item in row) for row in rows)
    except _Expression:
        selects = (
            ", ".join("".join(token.text for token in item).strip() for item in row) for row in rows
        )
        return text[: -len("VALUES")] + "SELECT " + " UNION ALL SELECT ".join(selects)
    row = parsed[0]
    bare = len(parsed) == 1 and all(type(item) is _Place for item in row)
    return Insert(text, parsed, needed, tuple(item.index for item in row) if bare else None)


def _plain(pieces: list[Token], spaces: bool = False) -> list[Token]:
    """The tokens without comments. `spaces`: keep white space and comments as a blank each."""
    if spaces:
        return [Token("other", " ") if piece.separates() else piece for piece in pieces]
    return [piece for piece in pieces if not piece.separates()]


def _joined(pieces: list[Token]) -> str:
    """The tokens as text."""
    return "".join(piece.text for piece in pieces)


def _rows(pieces: list[Token]) -> Iterator[list[list[Token]]]:
    """The rows after VALUES. Each row is a list of values, each value a list of tokens."""
    depth = 0
    row: list[list[Token]] = []
    for piece in pieces:
        text = piece.text if piece.kind == "other" or len(piece.text) == 1 else ""
        if depth == 0:
            if text == "(":
                depth, row = 1, [[]]
            elif not piece.text.isspace() and text != ",":
                raise StatementError("after VALUES stand rows in brackets: VALUES (?, ?), (?, ?)")
            continue
        depth += 1 if text in ("(", "[", "{") else -1 if text in (")", "]", "}") else 0
        if depth == 0:
            yield row
        elif text == "," and depth == 1:
            row.append([])
        else:
            row[-1].append(piece)
    if depth:
        raise StatementError("a row after VALUES is not closed: a ) is missing")


class _Places:
    """Numbers placeholders: `?` in order, `$1` by its number."""

    def __init__(self) -> None:
        self.count = 0

    def place(self, text: str) -> _Place:
        """The placeholder that is written as `text`."""
        if text == "?":
            self.count += 1
            return _Place(self.count - 1)
        if text == "$0":
            raise StatementError("placeholders are numbered from 1")
        return _Place(int(text[1:]) - 1)


class _Literal:
    """Reads one value of a row from its tokens.

    Raises `_Expression` if the value is more than a literal.
    """

    def __init__(self, pieces: list[Token], places: _Places) -> None:
        self.pieces: list[Token] = []
        self.apart: set[int] = set()
        """Indices of tokens that follow white space."""
        for piece in pieces:
            if piece.text.isspace():
                self.apart.add(len(self.pieces))
            else:
                self.pieces.append(piece)
        self.places = places
        self.at = 0

    def whole(self) -> Any:
        """The value. `_Expression` if tokens are left behind the value."""
        value = self.value()
        if self.at != len(self.pieces):
            raise _Expression
        return value

    def value(self) -> Any:
        """The value that begins at the next token."""
        piece = self.next()
        if piece.kind == "place":
            return self.places.place(piece.text)
        if piece.kind == "quoted":
            return self.string(piece.text)
        if piece.kind == "word":
            return _word(piece.text)
        if piece.text == "-":
            return -_number(self.next().text)
        if piece.text == "[":
            return self.items("]")
        if piece.text == "(":
            items = self.items(")")
            return tuple(items) if len(items) > 1 else _only(items)
        return _number(piece.text)

    def next(self) -> Token:
        """Take the next token. `_Expression` at the end."""
        if self.at == len(self.pieces):
            raise _Expression
        self.at += 1
        return self.pieces[self.at - 1]

    def string(self, text: str) -> str | bytes:
        """The value of a string, which may consist of several tokens."""
        # A doubled quote is read as the next string, directly behind the first.
        parts = [text]
        while (
            self.at < len(self.pieces)
            and self.pieces[self.at].kind == "quoted"
            and self.at not in self.apart
        ):
            parts.append(self.next().text)
        values = [unescaped(part) if part[0] == "'" else None for part in parts]
        if any(
            not isinstance(value, str) for value in values[: len(values) if len(values) > 1 else 0]
        ):
            raise _Expression
        if values[0] is None:
            raise _Expression
        return values[0] if len(values) == 1 else "'".join(str(value) for value in values)

    def items(self, end: str) -> list[Any]:
        """The values up to the closing bracket `end`."""
        items: list[Any] = []
        while self.at < len(self.pieces) and self.pieces[self.at].text != end:
            items.append(self.value())
            if self.at < len(self.pieces) and self.pieces[self.at].text not in (",", end):
                raise _Expression
            if self.at < len(self.pieces) and self.pieces[self.at].text == ",":
                self.at += 1
        self.next()
        return items


def _only(items: list[Any]) -> Any:
    """The value in parentheses around a single value."""
    if len(items) != 1:
        raise _Expression
    return items[0]


def _word(text: str) -> Any:
    """The value of a word such as NULL or TRUE."""
    words = {"NULL": None, "TRUE": True, "FALSE": False, "NAN": float("nan"), "INF": float("inf")}
    if text.upper() not in words:
        raise _Expression
    return words[text.upper()]


def _number(text: str) -> int | float | Decimal:
    """A number. With a point it stays exact until its column is known."""
    if _WHOLE.match(text):
        return int(text)
    if _FRACTION.match(text):
        return Decimal(text)
    if _POWER.match(text):
        return float(text)
    if text.upper() == "INF":
        return float("inf")
    raise _Expression

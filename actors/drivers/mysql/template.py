"""The text of a statement, cut at its placeholders once, and the rows that fit into one INSERT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from trunkline.actors.database.binds import misplaced
from trunkline.actors.database.sql.placeholders import check_count, fences
from trunkline.actors.database.sql.statements import split
from trunkline.actors.drivers.mysql.types import Literal
from trunkline.errors import StatementError
from trunkline.sqltext import Dialect, tokens

__all__ = ["Template", "template_of"]

_LONGEST_KEPT = 10_000
_BATCH = 1 << 20
"""Bytes of one INSERT of many rows. Larger statements are not faster."""


@dataclass(frozen=True, slots=True)
class Template:
    """The text around the placeholders: one piece more than there are placeholders."""

    pieces: tuple[str, ...]
    statements: int
    """How many statements the text has."""
    rows: tuple[int, int] | None
    """Where the row begins in the first piece, and where it ends in the last piece. Only for an
    `INSERT ... VALUES (?, ?)` whose placeholders all stand in its only row; otherwise None.
    """

    def text(self, binds: Sequence[Any] | Mapping[str, Any], literal: Literal, codec: str) -> bytes:
        """The statement with its values, encoded. StatementError for a wrong number of values."""
        if isinstance(binds, Mapping) and len(self.pieces) == 2:
            raise misplaced(binds)
        self.check(binds)
        return _filled([_encoded(piece, codec) for piece in self.pieces], binds, literal)

    def check(self, binds: Sequence[Any] | Mapping[str, Any]) -> None:
        """StatementError unless there is a value for each placeholder."""
        if isinstance(binds, Mapping):
            raise StatementError("mysql takes values in order, not by name; write ? for each")
        check_count(len(self.pieces) - 1, len(binds))

    def batches(
        self, rows: Iterable[Any], literal: Literal, codec: str, longest: int
    ) -> Iterator[bytes]:
        """Statements that together run this statement once for each row.

        They are as few as the length limit allows.
        """
        rows = self._checked(rows)
        if self.rows is None:
            pieces = [_encoded(piece, codec) for piece in self.pieces]
            yield from (_filled(pieces, row, literal) for row in rows)
            return
        start, end = self.rows
        first, *middle, last = self.pieces
        head, tail = _encoded(first[:start], codec), _encoded(last[end:], codec)
        pieces = [_encoded(piece, codec) for piece in (first[start:], *middle, last[:end])]
        yield from _joined(
            head, (_filled(pieces, row, literal) for row in rows), tail, min(longest, _BATCH)
        )

    def _checked(self, rows: Iterable[Any]) -> Iterator[Any]:
        """The rows.

        StatementError, with the row's number, at a row with a wrong number of values.
        """
        count = len(self.pieces) - 1
        for number, row in enumerate(rows, 1):
            if isinstance(row, Mapping) or len(row) != count:
                try:
                    self.check(row)
                except StatementError as error:
                    text = f"row {number}: {error}"
                raise StatementError(text)
            yield row


def _joined(head: bytes, rows: Iterator[bytes], tail: bytes, longest: int) -> Iterator[bytes]:
    """Rows joined into statements of at most `longest` bytes each.

    A single longer row is not split.
    """
    batch: list[bytes] = []
    size = room = longest - len(head) - len(tail)
    for row in rows:
        size -= len(row) + 1
        if size < 0 and batch:
            yield head + b",".join(batch) + tail
            batch, size = [], room - len(row) - 1
        batch.append(row)
    if batch:
        yield head + b",".join(batch) + tail


def _encoded(text: str, codec: str) -> bytes:
    """The text in the connection's character set.

    StatementError for a character that the set does not have.
    """
    try:
        return text.encode(codec)
    except UnicodeEncodeError as error:
        bad = ord(text[error.start])
    raise StatementError(f"the statement's text holds U+{bad:04X}, which cannot be sent in {codec}")


def _filled(pieces: Sequence[bytes], values: Any, literal: Literal) -> bytes:
    """The pieces with the literals of the values between them."""
    parts = [pieces[0]]
    for value, piece in zip(values, pieces[1:], strict=True):
        parts.append(literal(value))
        parts.append(piece)
    return b"".join(parts)


def template_of(sql: str) -> Template:
    """The template of a text. The last 256 texts are remembered, except very long texts."""
    return _kept(sql) if len(sql) <= _LONGEST_KEPT else _cut(sql)


@lru_cache(maxsize=256)
def _kept(sql: str) -> Template:
    return _cut(sql)


def _cut(sql: str) -> Template:
    """Cut a text at its placeholders."""
    if "?" not in sql and ";" not in sql:
        return Template((sql,), 1, None)
    pieces: list[str] = []
    piece: list[str] = []
    cut = [*tokens(sql, Dialect.MYSQL)]
    fenced = False
    for index, token in enumerate(cut):
        if token.kind == "place":
            before, behind = fences(cut, index, Dialect.MYSQL)
            pieces.append("".join(piece) + before)
            piece = [behind]
            fenced = fenced or before + behind != ""
        else:
            piece.append(token.text)
    pieces.append("".join(piece))
    statements = len(split(sql, Dialect.MYSQL)) if ";" in sql else 1
    return Template(
        tuple(pieces), statements, _row(sql, pieces) if statements == 1 and not fenced else None
    )


def _row(sql: str, pieces: Sequence[str]) -> tuple[int, int] | None:
    """See `Template.rows`. None for any statement that is not plainly of that form."""
    if len(pieces) < 2:
        return None
    depth = position = 0
    words: list[str] = []
    opened = closed = -1
    # Placeholders before the row, and in the row.
    places = [0, 0]
    for kind, text in tokens(sql, Dialect.MYSQL):
        position += len(text)
        if kind == "word" and depth == 0:
            words.append(text.upper())
        elif kind == "place":
            places[0 if opened < 0 else 1] += 1
            if closed >= 0:
                return None
        elif text == "(":
            if depth == 0 and opened < 0 and words[-1:] in (["VALUES"], ["VALUE"]):
                opened = position - 1
            depth += 1
        elif text == ")":
            depth -= 1
            if depth == 0 and opened >= 0 and closed < 0:
                closed = position
        elif (
            kind == "other" and text == "," and depth == 0 and closed >= 0 and "UPDATE" not in words
        ):
            # A second row.
            return None
    plain = words[:1] in (["INSERT"], ["REPLACE"]) and not {"SELECT", "RETURNING", "SET"} & set(
        words
    )
    if not plain or closed < 0 or places[0]:
        return None
    return opened, closed - (len(sql) - len(pieces[-1]))

"""Where one SQL statement of a text ends and the next begins, and the kind of each statement."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from trunkline.sqltext import Dialect, Token, tokens

__all__ = ["Statement", "split"]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a text, without its `;`."""

    text: str
    words: tuple[str, ...]
    """The unquoted words outside of parentheses, in upper case.
    The first word counts even inside parentheses.
    """

    @property
    def keyword(self) -> str:
        """The first word: `SELECT`, `WITH`, `BEGIN`; "" if there is no word."""
        return self.words[0] if self.words else ""

    @property
    def verb(self) -> str:
        """The word that says what the statement does.

        Like `keyword`, but for `WITH` the word after its tables.
        """
        verbs = ("SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE", "VALUES")
        found = (word for word in self.words if word in verbs)
        return next(found, "WITH") if self.keyword == "WITH" else self.keyword

    @property
    def transaction(self) -> str | None:
        """`begin`, `commit`, `rollback` or `savepoint`; None for all other statements.

        `savepoint` stands for setting, releasing and going back to a savepoint.
        """
        pair = self.words[:2]
        if pair == ("START", "TRANSACTION") or self.keyword == "XA":
            return "begin"
        if self.keyword == "ROLLBACK" and "TO" in self.words[1:3]:
            return "savepoint"
        return None if pair[1:] == ("PREPARED",) else _TRANSACTION.get(self.keyword)


_TRANSACTION = {
    "BEGIN": "begin",
    "COMMIT": "commit",
    "END": "commit",
    "ROLLBACK": "rollback",
    "ABORT": "rollback",
    "SAVEPOINT": "savepoint",
    "RELEASE": "savepoint",
}


class _Splitter:
    """The statement that is being read, and whether a `;` at this place would end the statement."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.clear()

    def clear(self) -> None:
        self.text: list[str] = []
        self.words: list[str] = []
        self.recent: list[str] = []
        """The last two words or `;`."""
        self.parens = self.blocks = 0

    def add(self, token: Token) -> None:
        self.text.append(token.text)
        if token.kind == "word":
            self._word(token.text.upper())
        elif token.kind == "end" or token.text in ("(", ")"):
            self.parens += {"(": 1, ")": -1}.get(token.text, 0)
        if token.kind in ("word", "end"):
            self.recent = [*self.recent[-1:], token.text.upper()]

    def _word(self, word: str) -> None:
        if self.parens <= 0 or not self.words:
            self.words.append(word)
        if self.dialect is Dialect.POSTGRES and self._creates("FUNCTION", "PROCEDURE"):
            atomic = word == "ATOMIC" and self.recent[-1:] == ["BEGIN"]
            self.blocks += 1 if atomic or (self.blocks and word == "CASE") else 0
            self.blocks -= 1 if self.blocks and word == "END" else 0

    def _creates(self, *kinds: str) -> bool:
        # TEMP, OR REPLACE or DEFINER = user may stand between CREATE and the kind.
        words = self.words[1:] if self.words[:1] == ["EXPLAIN"] else self.words
        between = 2 if self.dialect is Dialect.SQLITE else 5
        return words[:1] == ["CREATE"] and any(word in kinds for word in words[1 : 1 + between])

    def ends_here(self) -> bool:
        """Whether a `;` after the tokens so far ends the statement."""
        if self.dialect is Dialect.SQLITE and self._creates("TRIGGER"):
            # The rule of sqlite3_complete.
            return self.recent == [";", "END"]
        if self.dialect is Dialect.MYSQL and self._creates(
            "PROCEDURE", "FUNCTION", "TRIGGER", "EVENT"
        ):
            return "BEGIN" not in self.words
        return self.dialect is not Dialect.POSTGRES or (self.blocks == 0 and self.parens <= 0)

    def take(self) -> Iterator[Statement]:
        """The statement that was read, if it holds more than blanks and comments.

        Begins a new one.
        """
        text = "".join(self.text).strip()
        if self.content:
            yield Statement(text, tuple(self.words))
        self.clear()

    @property
    def content(self) -> bool:
        return any(not piece.isspace() and not _COMMENT.match(piece) for piece in self.text)


# A comment, but not `/*!`, which MySQL runs.
_COMMENT = re.compile(r"--|/\*(?!!)|#")


def split(sql: str, dialect: Dialect) -> list[Statement]:
    """The statements of a text, in order.

    Blanks and comments alone are no statement.

    The body of a trigger or procedure stays whole.
    In MySQL, a body with a `BEGIN` reaches to the end of the text.
    """
    state = _Splitter(dialect)
    found: list[Statement] = []
    for token in tokens(sql, dialect):
        if token.kind == "end" and state.ends_here():
            found += state.take()
        else:
            state.add(token)
    return [*found, *state.take()]

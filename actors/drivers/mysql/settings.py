"""Settings of a MySQL session that a user must not change, because the driver relies on them."""

from __future__ import annotations

import re

from trunkline.actors.drivers.mysql.plan import Charset
from trunkline.errors import StatementError
from trunkline.sqltext import MYSQL_RUNS, Dialect, tokens

__all__ = ["NO_AUTOCOMMIT", "check_settings", "sets_transaction"]

NO_AUTOCOMMIT = (
    "autocommit cannot be turned off: statements would wait in a transaction that nobody ends;"
    " use `with conn.transaction():`"
)
_OTHER_CHARSET = (
    "the character set is the address's (charset=...): texts are written and read accordingly"
)
# Comments of every kind, and the beginning of a comment that the server runs.
_GAP = r"(?:\s|/\*(?!M?!).*?\*/|--[^\n]*\n|\#[^\n]*\n|/\*M?!\d*)"
_SETS = re.compile(rf"{_GAP}*SET\b", re.IGNORECASE | re.DOTALL)
_SETS_TRANSACTION = re.compile(
    rf"{_GAP}*SET\b{_GAP}*(?:TRANSACTION\b|@@(?:transaction|tx)_(?:isolation|read_only)\b)",
    re.IGNORECASE | re.DOTALL,
)
_TURNS_OFF = re.compile(r"\bautocommit\b\s*:?=(?!\s*(?:1|ON|TRUE|DEFAULT)\b)", re.IGNORECASE)
_CHARSETS = re.compile(
    r"\b(?:NAMES|CHARSET|CHARACTER\s+SET|character_set_(?:client|connection|results))\b\s*:?=?\s*(\w*)",
    re.IGNORECASE,
)


def check_settings(sql: str, charset: Charset) -> None:
    """StatementError for a SET that turns autocommit off or changes the character set.

    A value that was written for one character set is another text in another character set.
    Such a value cannot end its string too early, though: `trunkline.actors.drivers.mysql.types`
    sees to that, because a SET may also hide in EXECUTE IMMEDIATE.
    """
    if not _SETS.match(sql):
        return
    bare = "".join(
        _unquoted(kind, text) for kind, text in tokens(MYSQL_RUNS.sub("", sql), Dialect.MYSQL)
    )
    if _TURNS_OFF.search(bare):
        raise StatementError(NO_AUTOCOMMIT)
    same = {"utf8", "utf8mb4"} if charset.codec == "utf-8" else {charset.name}
    if {name.lower() for name in _CHARSETS.findall(bare)} - same:
        raise StatementError(_OTHER_CHARSET)


def sets_transaction(sql: str) -> bool:
    """Whether a statement concerns only the next transaction (`SET TRANSACTION ...`).

    The server refuses such a statement in a transaction.
    """
    return bool(_SETS_TRANSACTION.match(sql))


def _unquoted(kind: str, text: str) -> str:
    """'ON' and `name` as words. A longer string, which may hold any text, becomes empty."""
    word = text[1:-1]
    return text if kind != "quoted" else word if re.fullmatch(r"\w+", word) else "''"

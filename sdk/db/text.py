"""The effect of a statement's text on transactions.

The text is not parsed. Only its words are read, without strings, quoted names and comments, which
are found by the rules of the database.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator

from trunkline.db.functions import calls_only_pure, dialect_of, is_gap
from trunkline.sqltext import Dialect, Token, tokens

__all__ = ["commits", "control", "gives_rows", "only_reads", "sets_session"]

_READS = frozenset(("SELECT", "VALUES", "TABLE", "SHOW", "DESCRIBE", "DESC", "PRAGMA"))
_MORE = re.compile(r";\s*\S|/\*M?!")
"""A second statement, or a comment that MySQL runs."""
_LOCKS = re.compile(r"\bFOR\s+(?:UPDATE|SHARE|NO|KEY)\b|\bLOCK\s+IN\b", re.IGNORECASE)
_INTO = re.compile(r"\bINTO\b", re.IGNORECASE)
_WRITES = re.compile(r"\b(?:INSERT|UPDATE|DELETE|MERGE|CREATE|REPLACE(?!\s*\())", re.IGNORECASE)
_ANALYZE = re.compile(r"\bANALY[SZ]E\b", re.IGNORECASE)
_SET_WORDS = frozenset(("SET", "RESET", "DISCARD", "USE", "ATTACH", "DETACH", "VACUUM"))
_STANDARD_SETS = re.compile(
    r"SET\s+(?!LOCAL\b|(?:SESSION\s+)?TRANSACTION\b|CONSTRAINTS\b)|RESET\b|DISCARD\b|USE\b",
    re.IGNORECASE,
)
_SETS = {
    Dialect.POSTGRES: _STANDARD_SETS,
    Dialect.STANDARD: _STANDARD_SETS,
    Dialect.MYSQL: re.compile(
        r"SET\s+(?!TRANSACTION\b|STATEMENT\b|@@(?:transaction|tx)_(?:isolation|read_only)\b)|USE\b",
        re.IGNORECASE,
    ),
    # SQLite refuses these statements in a transaction.
    Dialect.SQLITE: re.compile(r"(?:ATTACH|DETACH|VACUUM)\b", re.IGNORECASE),
}
_OPEN_ENDED = re.compile(r"""\\['"]""")
"""The settings of the session decide whether such a quote ends its string."""
_COMMITS = re.compile(
    r"(?:ALTER|ANALYZE(?=\s+(?:LOCAL\s+|NO_WRITE_TO_BINLOG\s+)?TABLES?\b)|CACHE|CHECK|CREATE|DROP|FLUSH|GRANT"
    r"|INSTALL|LOCK|OPTIMIZE|RENAME|REPAIR|RESET|REVOKE|SET\s+PASSWORD|TRUNCATE|UNINSTALL|UNLOCK)\b",
    re.IGNORECASE,
)
"""Statements before which MySQL commits."""
_COMMIT_WORDS = frozenset(re.findall(r"\b[A-Z]{3,}\b", _COMMITS.pattern))
_TEMPORARY = re.compile(r"(?:CREATE|DROP)\s+(?:OR\s+REPLACE\s+)?TEMPORARY\b", re.IGNORECASE)
_LEVELS = r"SERIALIZABLE|REPEATABLE\s+READ|READ\s+(?:UN)?COMMITTED"
_MODE = (
    rf"(?:DEFERRED|IMMEDIATE|EXCLUSIVE|ISOLATION\s+LEVEL\s+(?:{_LEVELS})|READ\s+(?:ONLY|WRITE)"
    r"|(?:NOT\s+)?DEFERRABLE|WITH\s+CONSISTENT\s+SNAPSHOT)\b"
)
"""A mode of a new transaction, in any of the databases."""
_MODES = rf"{_MODE}(?:\s*,?\s*{_MODE})*"
_CONTROL = re.compile(
    rf"(?P<begin>BEGIN(?:\s+TRANSACTION|\s+WORK)?|START\s+TRANSACTION)(?:\s+(?P<how>{_MODES}))?"
    r"(?:\s+TRANSACTION)?"
    r"|(?P<commit>COMMIT|END)(?:\s+TRANSACTION|\s+WORK)?"
    r"|(?P<rollback>ROLLBACK)(?:\s+TRANSACTION|\s+WORK)?",
    re.IGNORECASE,
)


def only_reads(sql: str, scheme: str) -> bool:
    """Whether a statement plainly changes nothing and locks nothing.

    False when in doubt, for example for a function that is not known to be pure.
    """
    dialect = dialect_of(scheme)
    word = _first_word(sql, dialect)
    if word not in _READS and word not in ("WITH", "EXPLAIN"):
        return False
    bare, pure = _looked_at(sql, scheme)
    if bare is None or _MORE.search(bare) or _LOCKS.search(bare) or _INTO.search(bare):
        return False
    if word == "WITH" and _WRITES.search(bare):
        return False
    # ANALYZE runs the statement that is explained. EXECUTE may stand for any statement.
    if word in ("EXPLAIN", "DESCRIBE", "DESC") and _ANALYZE.search(bare):
        return False
    return word == "PRAGMA" or pure


def sets_session(sql: str, scheme: str) -> bool:
    """Whether a statement only changes the session, so that it begins no transaction.

    Such statements are a plain `SET`, `USE` and SQLite's `ATTACH`.

    False for `SET LOCAL`, `SET TRANSACTION` and `SET CONSTRAINTS`.
    Also False for a `SET` whose value locks, or calls a function that is not known to be pure.
    """
    dialect = dialect_of(scheme)
    rule = _SETS.get(dialect)
    if rule is None or _first_word(sql, dialect) not in _SET_WORDS:
        return False
    bare, pure = _looked_at(sql, scheme)
    if bare is None or not rule.match(bare) or _MORE.search(bare) or _LOCKS.search(bare):
        return False
    return dialect is Dialect.SQLITE or pure


def gives_rows(sql: str, scheme: str) -> bool:
    """Whether a statement is of a kind that returns rows."""
    return _first_word(sql, dialect_of(scheme)) in (*_READS, "WITH", "EXPLAIN")


def commits(sql: str) -> bool:
    """Whether MySQL commits an open transaction before this statement.

    MySQL runs such a statement outside of any transaction.
    """
    if _first_word(sql, Dialect.MYSQL) not in _COMMIT_WORDS:
        return False
    bare = _looked_at(sql, "mysql")[0] or ""
    return bool(_COMMITS.match(bare)) and not _TEMPORARY.match(bare)


def control(sql: str, scheme: str) -> tuple[str, str] | None:
    """`begin`, `commit` or `rollback`, and the modes behind a BEGIN (`READ ONLY`, ...).

    None if the statement is anything else, or more than that.
    """
    dialect = dialect_of(scheme)
    if _first_word(sql, dialect) not in ("BEGIN", "START", "COMMIT", "END", "ROLLBACK"):
        return None
    match = _CONTROL.fullmatch((_looked_at(sql, scheme)[0] or "").rstrip("; \t\r\n"))
    if match is None:
        return None
    word = next(name for name in ("begin", "commit", "rollback") if match[name])
    return word, " ".join((match["how"] or "").upper().split())


def _pieces(sql: str, dialect: Dialect) -> Iterator[Token]:
    """The tokens of the text from its first word on.

    Parentheses and comments before the first word are left out.
    """
    found = tokens(sql, dialect)
    return itertools.dropwhile(lambda token: is_gap(token) or token.text == "(", found)


def _first_word(sql: str, dialect: Dialect) -> str:
    """The first word in upper case; "" if the text begins with something other than a word.

    Reads no more of the text than needed.
    """
    first = next(_pieces(sql, dialect), None)
    return first.text.upper() if first is not None and first.kind == "word" else ""


def _looked_at(sql: str, scheme: str) -> tuple[str | None, bool]:
    """The text from its first word on, with blanks for
    comments and `''` for strings and quoted names.

    Also whether each function that the text calls is known to be pure.

    The text is None if the settings of the session decide where a string ends.
    """
    return _look_once(sql, scheme) if len(sql) <= _REMEMBERED else _look(sql, scheme)


def _look(sql: str, scheme: str) -> tuple[str | None, bool]:
    """See `_looked_at`."""
    pieces = list(_pieces(sql, dialect_of(scheme)))
    words = [piece for piece in pieces if not is_gap(piece)]
    if any(piece.kind == "quoted" and _OPEN_ENDED.search(piece.text) for piece in words):
        return None, False
    bare = (
        " " if is_gap(piece) else "''" if piece.kind == "quoted" else piece.text for piece in pieces
    )
    return "".join(bare), calls_only_pure(words, scheme)


_REMEMBERED = 4000
"""Longest statement that is remembered, in characters.
Programs run the same statements again and again.
"""
_look_once = functools.lru_cache(maxsize=256)(_look)

"""What a statement's text says about transactions. A small look at its first words, no parser."""

from __future__ import annotations

import re

__all__ = ["commits", "control", "gives_rows", "only_reads"]

_LEADING = re.compile(r"(?:\s+|--[^\n]*(?:\n|\Z)|#[^\n]*(?:\n|\Z)|/\*(?!!).*?\*/|\()*", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]+")
_READS = frozenset(("SELECT", "VALUES", "TABLE", "SHOW", "DESCRIBE", "DESC", "PRAGMA"))
_LOCKS_OR_WRITES = re.compile(
    r"\bFOR\s+(?:UPDATE|SHARE|NO|KEY)\b|\bLOCK\s+IN\b|\bINTO\b|;\s*\S|/\*!",
    re.IGNORECASE,
)
_WRITES = re.compile(r"\b(?:INSERT|UPDATE|DELETE|MERGE|CREATE|REPLACE(?!\s*\())", re.IGNORECASE)
_ANALYZE = re.compile(r"\bANALY[SZ]E\b", re.IGNORECASE)
_COMMITS = re.compile(
    r"(?:ALTER|ANALYZE(?=\s+(?:LOCAL\s+|NO_WRITE_TO_BINLOG\s+)?TABLES?\b)|CHECK|CREATE|DROP|FLUSH|GRANT|INSTALL|LOCK|OPTIMIZE|RENAME|REPAIR|RESET|REVOKE|TRUNCATE"
    r"|UNINSTALL|UNLOCK)\b",
    re.IGNORECASE,
)
_TEMPORARY = re.compile(r"(?:CREATE|DROP)\s+(?:OR\s+REPLACE\s+)?TEMPORARY\b", re.IGNORECASE)
_CONTROL = re.compile(
    r"(?P<begin>BEGIN|START\s+TRANSACTION)(?:\s+TRANSACTION|\s+WORK)?"
    r"|(?P<commit>COMMIT|END)(?:\s+TRANSACTION|\s+WORK)?"
    r"|(?P<rollback>ROLLBACK)(?:\s+TRANSACTION|\s+WORK)?",
    re.IGNORECASE,
)


def only_reads(sql: str) -> bool:
    """Whether a statement plainly changes nothing and locks nothing; when in doubt it does. What stands in
    strings and comments counts as doubt too. A function that writes is not seen."""
    start, word = _first_word(sql)
    if word in _READS:
        return not _LOCKS_OR_WRITES.search(sql, start)
    if word == "WITH":
        return not (_LOCKS_OR_WRITES.search(sql, start) or _WRITES.search(sql, start))
    if word == "EXPLAIN":
        # ANALYZE runs what is explained, and EXECUTE may stand for anything
        return not (_ANALYZE.search(sql, start) or _LOCKS_OR_WRITES.search(sql, start))
    return False


def gives_rows(sql: str) -> bool:
    """Whether a statement is of a kind that has rows as its result."""
    return _first_word(sql)[1] in (*_READS, "WITH", "EXPLAIN")


def commits(sql: str) -> bool:
    """Whether MySQL commits an open transaction before this statement, and runs it outside of any."""
    start, _ = _first_word(sql)
    return bool(_COMMITS.match(sql, start)) and not _TEMPORARY.match(sql, start)


def control(sql: str) -> str | None:
    """`begin`, `commit` or `rollback` where the statement is that and nothing more, else None."""
    start, word = _first_word(sql)
    if word not in ("BEGIN", "START", "COMMIT", "END", "ROLLBACK"):
        return None
    match = _CONTROL.fullmatch(sql[start:].rstrip("; \t\r\n"))
    return match.lastgroup if match else None


def _first_word(sql: str) -> tuple[int, str]:
    leading = _LEADING.match(sql)
    start = leading.end() if leading else 0
    word = _WORD.match(sql, start)
    return start, word.group().upper() if word else ""

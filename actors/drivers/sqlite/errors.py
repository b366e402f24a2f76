"""The refusals of SQLite, in text that says what to do."""

from __future__ import annotations

import os
import sqlite3

from trunkline.errors import StatementError

__all__ = ["REFUSALS", "error_name", "hint", "is_special", "open_hint", "refusal"]

REFUSALS = (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError)
"""Errors of `sqlite3` for a statement that cannot be run, or for a row that cannot be read."""
_OPEN_QUERY = "a query of this connection is not all read; read it to the end or close it"
_HINTS = {
    "SQLITE_BUSY_SNAPSHOT": "another program wrote since this transaction, or a query that is still open,"
    " began to read; end that and try again",
    "SQLITE_BUSY": "another program holds it; raise _busy_timeout or share one handle with fd()",
    "SQLITE_LOCKED_SHAREDCACHE": "another connection with cache=shared holds the table; end its statement"
    " first",
    "SQLITE_LOCKED": _OPEN_QUERY,
    "SQLITE_ABORT_ROLLBACK": "the transaction in which this query began was rolled back; run it again",
    "SQLITE_FULL": "there is no space left for {file}; free some, or raise PRAGMA max_page_count",
    "SQLITE_READONLY_DBMOVED": "{file} was moved or deleted while it was open; dial it again",
    "SQLITE_READONLY": "{file} cannot be written; check its permissions, mode=ro and _query_only",
    "SQLITE_CORRUPT": "{file} is damaged; restore a copy, or try the .recover command of sqlite3",
    "SQLITE_NOTADB": "{file} is not an SQLite database, or an encrypted one; check the name",
    "SQLITE_CANTOPEN": "{file} or its journal cannot be opened; check that its folder exists and is writable",
    "SQLITE_IOERR": "{file} cannot be read or written; check its disk, and that it was not moved or deleted",
}


_FAMILIES = (
    "ERROR",
    "ABORT",
    "BUSY",
    "LOCKED",
    "READONLY",
    "IOERR",
    "CORRUPT",
    "CANTOPEN",
    "CONSTRAINT",
    "AUTH",
)


def error_name(error: BaseException) -> str:
    """SQLite's name of the error, such as `SQLITE_BUSY`; "" for an error of Python's module."""
    name = str(getattr(error, "sqlite_errorname", ""))
    if name != "unknown":
        return name
    # Python's module is older than this code of SQLite.
    # The first byte of the code tells the family.
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
    families = (f"SQLITE_{family}" for family in _FAMILIES)
    return next((family for family in families if getattr(sqlite3, family) == kind), name)


def hint(code: str, file: str) -> str:
    """Advice for an error of this name; "" without advice."""
    return next(
        (text.format(file=file) for start, text in _HINTS.items() if code.startswith(start)), ""
    )


def is_special(file: str) -> bool:
    """Whether the name is that of a folder, a device or a pipe, which cannot be a database."""
    return os.path.exists(file) and not os.path.isfile(file)


def open_hint(file: str, mode: str) -> str:
    """Why a file cannot be opened. SQLite says only that opening failed."""
    folder = os.path.dirname(file) or "."
    if os.path.isdir(file):
        return "it is a folder; name a file in it"
    if is_special(file):
        return "it is a device, a pipe or a socket; name a file"
    if not os.path.isdir(folder):
        return f"there is no folder {folder}; make it first"
    if os.path.exists(file):
        return "access is not permitted; check who owns the file"
    if mode in ("ro", "rw"):
        return f"there is no such file, and mode={mode} makes none; mode=rwc does"
    return f"no file can be made in {folder}; check its permissions"


def refusal(error: BaseException, file: str, *, queries: bool = False) -> StatementError:
    """The error of a statement.

    `queries`: the rows of some query were not all read at that time.
    """
    code = error_name(error)
    if code == "SQLITE_INTERRUPT":
        return StatementError("interrupted", code=code)
    if "Could not decode to UTF-8" in str(error):
        return StatementError(f"{error}; read such a column with CAST(... AS BLOB)")
    if isinstance(error, UnicodeEncodeError):
        return StatementError(
            "SQLite stores UTF-8 only, and this text has half a surrogate pair; bind bytes"
        )
    advice = hint(code, file)
    if code == "SQLITE_CANTOPEN" and str(error).startswith("unable to open database: "):
        # For an ATTACH, which names the file.
        advice = "check that its folder exists and is writable"
    if code == "SQLITE_ERROR" and queries and any(words in str(error) for words in _WHILE_READING):
        advice = _OPEN_QUERY
    return StatementError(f"{error}: {advice}" if advice else str(error), code=code or None)


_WHILE_READING = ("in progress", "a transaction", "is locked")
"""Parts of SQLite's texts, without a code, that an open query may be the reason for."""

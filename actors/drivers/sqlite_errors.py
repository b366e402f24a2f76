"""SQLite's refusals in words that say what to do."""

from __future__ import annotations

import os

from trunkline.errors import StatementError

__all__ = ["error_name", "hint", "open_hint", "refusal"]

_HINTS = {
    "SQLITE_BUSY": "another program holds it; raise _busy_timeout or share one handle with fd()",
    "SQLITE_LOCKED": "another connection with cache=shared holds the table; end its statement first",
    "SQLITE_FULL": "there is no space left for {file}; free some, or raise PRAGMA max_page_count",
    "SQLITE_READONLY": "{file} cannot be written; check its permissions, mode=ro and _query_only",
    "SQLITE_CORRUPT": "{file} is damaged; restore a copy, or try the .recover command of sqlite3",
    "SQLITE_NOTADB": "{file} is not an SQLite database, or an encrypted one; check the name",
    "SQLITE_CANTOPEN": "{file} or its journal cannot be opened; check that its folder exists and is writable",
    "SQLITE_IOERR": "{file} cannot be read or written; check its disk",
}


def error_name(error: Exception) -> str:
    """SQLite's name of the error, such as `SQLITE_BUSY`; "" for an error of Python's module."""
    return str(getattr(error, "sqlite_errorname", ""))


def hint(code: str, file: str) -> str:
    """What to do about an error of this name, "" where there is nothing to add."""
    return next((text.format(file=file) for start, text in _HINTS.items() if code.startswith(start)), "")


def open_hint(file: str, mode: str) -> str:
    """Why a file cannot be opened: SQLite says only that it cannot."""
    folder = os.path.dirname(file) or "."
    if os.path.isdir(file):
        return "it is a folder; name a file in it"
    if not os.path.isdir(folder):
        return f"there is no folder {folder}; make it first"
    if os.path.exists(file):
        return "access is not permitted; check who owns the file"
    if mode in ("ro", "rw"):
        return f"there is no such file, and mode={mode} makes none; mode=rwc does"
    return f"no file can be made in {folder}; check its permissions"


def refusal(error: Exception, file: str) -> StatementError:
    """The error of a statement."""
    code = error_name(error)
    if code == "SQLITE_INTERRUPT":
        return StatementError("interrupted", code=code)
    if "Could not decode to UTF-8" in str(error):
        return StatementError(f"{error}; read such a column with CAST(... AS BLOB)")
    if isinstance(error, UnicodeEncodeError):
        return StatementError("SQLite stores UTF-8 only, and this text has half a surrogate pair; bind bytes")
    advice = hint(code, file)
    return StatementError(f"{error}: {advice}" if advice else str(error), code=code or None)

"""SQLite: sqlite3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trunkline.address import sqlite
from trunkline.address.golang import Dsn, DsnError
from trunkline.address.schemes.model import ALWAYS, DATABASE_REFUSALS, AddressParts, Scheme

__all__ = ["ROWS"]


def _read_dsn(rest: str, environ: Mapping[str, str]) -> tuple[str, Dsn]:
    if not rest:
        raise DsnError("it names no file; :memory: is a database in memory")
    return rest, replace(sqlite.parse(rest), user=None)


def _resolve_files(parts: AddressParts, folder: str) -> dict[str, Any]:
    target, extra = sqlite.resolve(parts.target, {**parts.extra, "cwd": folder}, folder)
    path = extra["file"]
    database = target if extra["uri"] else path or parts.database
    return {"target": target, "extra": extra, "database": database, "path": path}


def _shown_place(parts: AddressParts) -> str:
    return str(parts.extra.get("file") or ":memory:")


def _outlives_crash(parts: AddressParts) -> bool:
    """Whether the database outlives its worker: a database in memory and a temporary database do
    not."""
    return bool(parts.extra.get("file")) and not parts.extra.get("memory")


ROWS = (
    Scheme(
        name="sqlite3",
        family="database",
        example="sqlite3://file.db",
        more_examples=(
            "sqlite3://:memory:",
            "sqlite3://file:t.db?cache=shared&mode=memory",
        ),
        driver="trunkline.actors.drivers.sqlite.driver:SqliteDriver",
        net="",
        mistaken=("sqlite", "file"),
        read_dsn=_read_dsn,
        resolve_files=_resolve_files,
        shown_place=_shown_place,
        outlives_crash=_outlives_crash,
        options=ALWAYS,
        refusals=(
            *DATABASE_REFUSALS,
            ("reconnect", ", a file without a server"),
            ("interval", ", a file without a server"),
            ("maxInterval", ", a file without a server"),
            ("retry", ", a file without a server"),
        ),
        dialect="sqlite",
    ),
)

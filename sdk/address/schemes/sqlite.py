"""SQLite: sqlite3."""

from __future__ import annotations

from trunkline.address.schemes.model import ALWAYS, DATABASE_REFUSALS, Scheme

__all__ = ["ROWS"]

ROWS = (
    Scheme(
        name="sqlite3",
        family="database",
        example="sqlite3://file.db",
        driver="trunkline.actors.drivers.sqlite.driver:SqliteDriver",
        mistaken=("sqlite", "file"),
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

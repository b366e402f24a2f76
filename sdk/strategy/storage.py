"""`_G`: values that outlive the strategy, in a sqlite file of its own."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Store", "strategy_folder"]

_UNSET: Any = object()


def strategy_folder(script: Path, root: str | os.PathLike[str] | None = None) -> Path:
    """Where a strategy's files are: below `root`, `TRUNKLINE_DATA`, or the user's data folder (XDG).

    Named after the script and its place, so that two `main.py` do not share their values.
    """
    mark = hashlib.sha256(str(script.resolve()).encode()).hexdigest()[:8]
    base = root or os.environ.get("TRUNKLINE_DATA")
    if base is None:
        home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        base = Path(home) / "trunkline"
    return Path(base).absolute() / f"{script.stem}-{mark}"


class Store:
    """Keys without case, values as JSON. Each call opens the file anew: threads and forked children
    then need no care, and it costs a fraction of a millisecond."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, key: object = _UNSET, value: Any = _UNSET) -> Any:
        """`_G()` the strategy's id · `_G(k)` its value or None · `_G(k, v)` sets it and returns it ·
        `_G(k, None)` deletes it · `_G(None)` deletes all."""
        if key is _UNSET:
            return int(hashlib.sha256(str(self._folder).encode()).hexdigest()[:7], 16)
        if key is None:
            self._run("DELETE FROM state")
            return None
        name = str(key).lower()
        if value is _UNSET:
            rows = self._run("SELECT value FROM state WHERE key = ?", name)
            return json.loads(rows[0][0]) if rows else None
        if value is None:
            self._run("DELETE FROM state WHERE key = ?", name)
        else:
            self._run("INSERT OR REPLACE INTO state VALUES (?, ?)", name, json.dumps(value))
        return value

    def _run(self, sql: str, *binds: str) -> list[tuple[str]]:
        with self._open() as database:
            return database.execute(sql, binds).fetchall()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with closing(sqlite3.connect(self._folder / "state.db", timeout=30)) as database, database:
            database.execute("CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            yield database

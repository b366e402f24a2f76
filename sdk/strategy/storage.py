"""`_G`: values that outlive the strategy, in a sqlite file for each strategy."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

__all__ = ["Store", "lock_folder", "strategy_folder"]

_UNSET: Any = object()
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def strategy_folder(
    script: Path, root: str | os.PathLike[str] | None = None, name: str | None = None
) -> Path:
    """The folder of a strategy's files, below `root`, `TRUNKLINE_DATA` or the user's data folder
    (XDG).

    The folder's name contains the script's name and a hash of its path: two scripts `main.py` do
    not share values.
    `name`: the run's name, which is added to the folder's name.
    ValueError for a name that cannot be part of a file name.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise ValueError(
            f"--name {name[:80]}: 1 to 64 letters, digits, dots, hyphens and underscores"
        )
    mark = hashlib.sha256(str(script.resolve()).encode()).hexdigest()[:8]
    base = root or os.environ.get("TRUNKLINE_DATA")
    if base is None:
        home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        base = Path(home) / "trunkline"
    folder = f"{script.stem}-{mark}" if name is None else f"{script.stem}-{mark}-{name}"
    return Path(base).absolute() / folder


def lock_folder(folder: Path, script: str) -> IO[str] | None:
    """Lock the folder for this run, until the returned file is closed or the process ends.

    ValueError when another run holds the lock. Returns None when the folder cannot be used at all;
    functions that need the folder then report the error. The lock belongs to this process: children
    do not keep it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (folder / "run.lock").open("a+", encoding="ascii")
    except OSError:
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read(20).strip() or "another process"
        file.close()
        raise ValueError(
            f"{script} runs already (process {owner}), and the two would share what _G and DBExec store; "
            "give this run a storage of its own: trunkline run --name ID"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


class Store:
    """The global `_G`: keys without case, values as JSON.

    Every call opens the file anew. Threads and forked children then need no care, at the cost of a
    fraction of a millisecond.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, key: object = _UNSET, value: Any = _UNSET) -> Any:
        """Read, set or delete values.

        `_G()`: the strategy's id.
        `_G(k)`: the value of k, or None.
        `_G(k, v)`: set and return v; TypeError for a value that JSON cannot hold.
        `_G(k, None)`: delete k.
        `_G(None)`: delete all values.
        """
        if key is _UNSET:
            return int(hashlib.sha256(str(self._folder).encode()).hexdigest()[:7], 16)
        if key is None:
            self._run_statement("DELETE FROM state")
            return None
        name = str(key).lower()
        if value is _UNSET:
            rows = self._run_statement("SELECT value FROM state WHERE key = ?", name)
            return json.loads(rows[0][0]) if rows else None
        if value is None:
            self._run_statement("DELETE FROM state WHERE key = ?", name)
        else:
            try:
                text = json.dumps(value)
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"_G keeps what JSON can hold, and not this value of {name[:40]}: {error}"
                ) from None
            self._run_statement("INSERT OR REPLACE INTO state VALUES (?, ?)", name, text)
        return value

    def _run_statement(self, sql: str, *binds: str) -> list[tuple[str]]:
        with self._open_database() as database:
            return database.execute(sql, binds).fetchall()

    @contextmanager
    def _open_database(self) -> Iterator[sqlite3.Connection]:
        """Open the file inside the block, and commit at the end.

        Another process may hold the lock for 30 s.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with closing(sqlite3.connect(self._folder / "state.db", timeout=30)) as database, database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
            )
            yield database

"""`DBExec`: the strategy's own sqlite database, dialled at the first use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Database"]


class Database:
    """The global `DBExec`.

    SQL that begins with `:` goes to a database in memory, other SQL to the strategy's file.
    """

    def __init__(self, dial: Callable[..., Any], folder: Path) -> None:
        self._dial = dial
        self._folder = folder
        self._open: dict[bool, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, sql: str, *binds: Any, **options: Any) -> Any:
        """Execute a statement: `{"columns": [...], "values": [[...], ...]}`, or None with the
        reason in the log."""
        if not isinstance(sql, str):
            raise TypeError(f"DBExec takes SQL as text, not {type(sql).__name__}")
        memory = sql.startswith(":")
        connection = self._find_connection(memory)
        text = sql[1:] if memory else sql
        return None if connection is None else connection.exec(text, *binds, **options)

    def close(self) -> None:
        """Close the connections; the next use dials again."""
        with self._lock:
            for connection in self._open.values():
                connection.close()
            self._open.clear()

    def _find_connection(self, memory: bool) -> Any:
        """The connection, dialled at the first use; None when the dial fails."""
        with self._lock:
            if memory not in self._open:
                connection = self._dial(self._address_of(memory))
                if connection is None:
                    return None
                self._open[memory] = connection
            return self._open[memory]

    def _address_of(self, memory: bool) -> str:
        """The address of a database; ValueError for a path that an address cannot hold."""
        if memory:
            return "sqlite3://:memory:"
        path = self._folder / "strategy.db"
        if unfit := sorted(set("?|%#") & set(str(path))):
            raise ValueError(
                f"DBExec: no {unfit[0]!r} may be in the data folder's path: {path}; use --data"
            )
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return f"sqlite3://{path}"

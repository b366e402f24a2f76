"""Notices of the server: warnings go to the user's log, each once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trunkline.actors.drivers.postgres.errors import one_line

__all__ = ["Notices"]

_MOST_WARNINGS = 1000


class Notices:
    """Those of one connection. `warn` is for the user's log."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._told: set[str] = set()

    def tell(self, connection: Any) -> None:
        """Tell what has come since the last call. `connection` is psycopg2's."""
        connection.notifies.clear()  # of a LISTEN: a database connection has no read that could give them
        if not connection.notices:
            return
        for notice in connection.notices:
            text = one_line(_without_statement(notice))
            is_new = text not in self._told and len(self._told) < _MOST_WARNINGS
            if is_new and text.startswith("WARNING:"):
                self._told.add(text)
                self._warn(text)
        connection.notices.clear()


def _without_statement(notice: str) -> str:
    """A notice without the line of the statement that it is about: that may hold values."""
    lines = notice.splitlines()
    return "\n".join(line for line in lines if not line.startswith("LINE ") and line.strip() != "^")

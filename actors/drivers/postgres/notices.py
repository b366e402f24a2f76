"""Notices of the server. Each warning goes to the user's log once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trunkline.actors.drivers.postgres.errors import one_line

__all__ = ["Notices"]

_MOST_WARNINGS = 1000


class Notices:
    """The notices of one connection. `warn` writes a line into the user's log."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._told: set[str] = set()

    def tell(self, connection: Any) -> None:
        """Tell the warnings that have come since the last call. `connection` is psycopg2's."""
        # Notifications of a LISTEN are dropped: a database connection has no read() for them.
        connection.notifies.clear()
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
    """A notice without the line of its statement, because the line may hold values."""
    lines = notice.splitlines()
    return "\n".join(line for line in lines if not line.startswith("LINE ") and line.strip() != "^")

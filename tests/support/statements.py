"""Statements of the tests: their rows, and whether a lost server answers again."""

from __future__ import annotations

from tests.support.waiting import until
from trunkline import Connection
from trunkline.errors import TrunklineError
from trunkline.testing.contracts import rows

__all__ = ["back", "rows"]


def back(connection: Connection) -> None:
    """Wait until its server answers again; a dial that was refused meanwhile is told once."""

    def usable() -> bool:
        try:
            return rows(connection, "SELECT 1") == [[1]]
        except TrunklineError:
            return False

    until(usable, "a statement run", 30)

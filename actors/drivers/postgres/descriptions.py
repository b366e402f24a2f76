"""The types that the values of a statement may have, as told by the server.

The server is asked once for each text.

The server is asked only if a value is a list or a dict,
because a list or dict fits several types of PostgreSQL.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

from trunkline.actors.driver import Result
from trunkline.actors.drivers.postgres.shapes import (
    PREPARABLE,
    Shape,
    described,
    from_casts,
    numbered,
    types_query,
)
from trunkline.actors.drivers.postgres.statements import Text
from trunkline.errors import StatementError

__all__ = ["Descriptions"]

_MOST_SHAPES = 256
"""How many texts are remembered."""
_OTHER_TYPE = ("22", "42")
"""Classes of error codes: a value does not fit its
type, or its type does not fit the column or operator.
"""
_DEFINING = frozenset(("CREATE", "ALTER", "DROP"))
"""After these statements a text may have other types than before."""


class Server(Protocol):
    """The part of the driver that is needed here."""

    def run(
        self, text: str, values: Sequence[object] | None = None, whole: bool = False
    ) -> Result: ...
    def in_transaction(self) -> bool: ...


class Descriptions:
    """The descriptions of one connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._shapes: dict[str, tuple[Shape, ...]] = {}
        """The shapes of each value, by the text of the statement."""
        self._asked = 0
        """How many texts were asked about; makes the name of the next prepared statement."""

    def note_statements(self, text: Text) -> None:
        """Note the statements that are going to run.

        After a statement that defines something, the server is asked anew.
        """
        if any(statement.keyword in _DEFINING for statement in text.statements):
            self._shapes.clear()

    def shapes(
        self, text: Text, count: int, fits: Callable[[Sequence[Shape]], bool]
    ) -> Sequence[Shape]:
        """The shape that each value of one statement may have.

        The server is asked once for each text. The server is asked again if
        the values do not fit any more, because another program may have
        changed a column. StatementError if the server refuses the statement.
        """
        found = self._shapes.get(text.body)
        if found is None or not fits(found):
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            preparable = text.one.keyword in PREPARABLE
            found = self._ask(text.body, count) if preparable else from_casts(text.body, count)
            self._shapes[text.body] = found
        return found

    def forget_stale(self, error: StatementError, text: Text) -> bool:
        """Whether a refused statement was written by types that the server told earlier.

        Those types are forgotten, so the server is asked again next time.
        """
        was_known = self._shapes.pop(text.body, None) is not None
        return was_known and str(error.code)[:2] in _OTHER_TYPE

    def _ask(self, body: str, count: int) -> tuple[Shape, ...]:
        """Ask the server, inside a transaction or behind a savepoint.

        So a refused statement leaves an open transaction as it was. And a pooler that chooses a
        server for each transaction uses one server for all these statements.
        """
        self._asked += 1
        name = f"trunkline_{self._asked}"
        begin, end, undo = "BEGIN", "COMMIT", "ROLLBACK"
        if self._server.in_transaction():
            begin = f"SAVEPOINT {name}"
            end = f"RELEASE SAVEPOINT {name}"
            undo = f"ROLLBACK TO SAVEPOINT {name}; {end}"
        try:
            # The line end ends a comment at the end of the text.
            asked = f"{begin}; PREPARE {name} AS {numbered(body, count)}\n; {types_query(name)}"
            rows = self._server.run(asked, whole=True).values
            self._server.run(f"DEALLOCATE {name}; {end}")
        except StatementError:
            # If the transaction had failed before, the savepoint does not exist.
            with contextlib.suppress(StatementError):
                if self._server.in_transaction():
                    self._server.run(undo)
            raise
        return described(rows)

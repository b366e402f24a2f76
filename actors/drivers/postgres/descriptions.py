"""What types the values of a statement may have, as the server tells it: asked once for each text.

The server is asked only where a value is a list or a dict, which may be several types of PostgreSQL's.
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
_OTHER_TYPE = ("22", "42")
"""Classes of codes: a value is none of its type, or of another type than its column or operator takes."""
_DEFINING = frozenset(("CREATE", "ALTER", "DROP"))
"""After these a text may mean other types than before."""


class Server(Protocol):
    """What is needed of the driver."""

    def run(
        self, text: str, values: Sequence[object] | None = None, whole: bool = False
    ) -> Result: ...
    def in_transaction(self) -> bool: ...


class Descriptions:
    """Those of one connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._shapes: dict[str, tuple[Shape, ...]] = {}
        """By the text of a statement: what each of its values may be."""
        self._asked = 0

    def note_statements(self, text: Text) -> None:
        """These statements are going to run: where they define something, all is asked anew afterwards."""
        if any(statement.keyword in _DEFINING for statement in text.statements):
            self._shapes.clear()

    def shapes(
        self, text: Text, count: int, fits: Callable[[Sequence[Shape]], bool]
    ) -> Sequence[Shape]:
        """What each of the values of one statement may be; asked once for each text, and again where the
        values do not fit any more: another program may have changed a column since. StatementError when the
        server refuses the statement."""
        found = self._shapes.get(text.body)
        if found is None or not fits(found):
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            preparable = text.one.keyword in PREPARABLE
            found = self._ask(text.body, count) if preparable else from_casts(text.body, count)
            self._shapes[text.body] = found
        return found

    def forget_stale(self, error: StatementError, text: Text) -> bool:
        """Whether a refused statement was written by types that the server told before. They are forgotten:
        the next time it is asked again."""
        was_known = self._shapes.pop(text.body, None) is not None
        return was_known and str(error.code)[:2] in _OTHER_TYPE

    def _ask(self, body: str, count: int) -> tuple[Shape, ...]:
        """Ask the server, so that a statement that it refuses leaves an open transaction as it was, and that
        a pooler which gives each transaction another server gives one to all of this."""
        self._asked += 1
        name = f"trunkline_{self._asked}"
        begin, end, undo = "BEGIN", "COMMIT", "ROLLBACK"
        if self._server.in_transaction():
            begin = f"SAVEPOINT {name}"
            end = f"RELEASE SAVEPOINT {name}"
            undo = f"ROLLBACK TO SAVEPOINT {name}; {end}"
        try:
            # the line end is for a comment at the end of the text
            asked = f"{begin}; PREPARE {name} AS {numbered(body, count)}\n; {types_query(name)}"
            rows = self._server.run(asked, whole=True).values
            self._server.run(f"DEALLOCATE {name}; {end}")
        except StatementError:
            with contextlib.suppress(StatementError):  # the transaction had failed before
                if self._server.in_transaction():
                    self._server.run(undo)
            raise
        return described(rows)

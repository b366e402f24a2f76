"""Who may use a shared database connection now. Pure: no thread, no clock, no driver.

Statements wait in one line, first come, first served, so no holder starves. A transaction takes the
connection out of the line: until it ends only its own statements run, the others keep their places.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Turns", "Waiting"]

T = TypeVar("T")


@dataclass(slots=True)
class Waiting(Generic[T]):
    """A job in the line. `token` names the transaction it belongs to, None for none."""

    holder: bytes
    token: bytes | None
    job: T


class Turns(Generic[T]):
    """The line, and who has the connection to itself."""

    def __init__(self) -> None:
        self.line: deque[Waiting[T]] = deque()
        self.owner: bytes | None = None
        """Token of the open transaction."""
        self.owner_holder: bytes | None = None

    def add(self, waiting: Waiting[T]) -> None:
        self.line.append(waiting)

    def next(self) -> Waiting[T] | None:
        """The next job that may run, taken out of the line; None when there is none."""
        for waiting in self.line:
            if self.owner is None or waiting.token == self.owner:
                self.line.remove(waiting)
                return waiting
        return None

    def begin(self, token: bytes, holder: bytes) -> None:
        """The connection is this transaction's from now on."""
        self.owner, self.owner_holder = token, holder

    def end(self) -> None:
        """The transaction is over."""
        self.owner = self.owner_holder = None

    def remove(self, waiting: Waiting[T]) -> bool:
        """Leave the line; False when it was not there any more."""
        try:
            self.line.remove(waiting)
        except ValueError:
            return False
        return True

    def leave(self, holder: bytes) -> list[Waiting[T]]:
        """A holder is gone: its waiting jobs, taken out of the line."""
        gone = [w for w in self.line if w.holder == holder]
        self.line = deque(w for w in self.line if w.holder != holder)
        return gone

"""Who may use a shared database connection now. It has no thread, clock or driver of its own; but the loop
and the driver's thread both take from the line, so there is a lock.

Statements wait in one line, first come, first served, so no holder starves. A transaction takes the
connection out of the line: until it ends only its own statements run, the others keep their places.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["BARE", "Turns", "Waiting"]

T = TypeVar("T")

BARE = b""
"""The token of a transaction that a statement (`BEGIN`) opened: it belongs to its holder, not to a block."""


@dataclass(slots=True, eq=False)
class Waiting(Generic[T]):
    """A job in the line. `token` names the transaction it belongs to, None for none."""

    holder: bytes
    token: bytes | None
    job: T


class Turns(Generic[T]):
    """The line, and who has the connection to itself."""

    def __init__(self) -> None:
        self.line: deque[Waiting[T]] = deque()
        self._lock = threading.Lock()
        self.owner: bytes | None = None
        """Token of the open transaction."""
        self.owner_holder: bytes | None = None

    def add(self, waiting: Waiting[T]) -> None:
        with self._lock:
            self.line.append(waiting)

    def put_back(self, jobs: list[Waiting[T]]) -> None:
        """They were next, and are again."""
        with self._lock:
            self.line.extendleft(reversed(jobs))

    def next(self) -> Waiting[T] | None:
        """The next job that may run, taken out of the line; None when there is none.

        A job whose transaction is over comes out in its turn too: `stale` tells, and it must not be run.
        """
        with self._lock:
            for waiting in self.line:
                if self.owner is None or self.may_enter(waiting.holder, waiting.token):
                    self.line.remove(waiting)
                    return waiting
        return None

    def take_along(self, fits: Callable[[T], bool], most: int) -> list[Waiting[T]]:
        """Those at the front of the line that fit, `most` at most, taken out of it. Only without an owner."""
        found: list[Waiting[T]] = []
        with self._lock:
            while self.line and len(found) < most and self.line[0].token is None and fits(self.line[0].job):
                found.append(self.line.popleft())
        return found

    def may_enter(self, holder: bytes, token: bytes | None) -> bool:
        """Whether a job belongs to the open transaction."""
        if self.owner == BARE:
            return not token and holder == self.owner_holder
        return self.owner is not None and token == self.owner

    def stale(self, token: bytes | None) -> bool:
        """Whether a job is of a transaction that is over: outside of it, it would mean something else."""
        return token is not None and token != self.owner

    def begin(self, token: bytes, holder: bytes) -> None:
        """The connection is this transaction's from now on."""
        self.owner, self.owner_holder = token, holder

    def end(self) -> None:
        """The transaction is over."""
        self.owner = self.owner_holder = None

    def remove(self, waiting: Waiting[T]) -> bool:
        """Leave the line; False when it was not there any more."""
        with self._lock:
            try:
                self.line.remove(waiting)
            except ValueError:
                return False
        return True

    def leave(self, holder: bytes) -> list[Waiting[T]]:
        """A holder is gone: its waiting jobs, taken out of the line."""
        with self._lock:
            gone = [w for w in self.line if w.holder == holder]
            self.line = deque(w for w in self.line if w.holder != holder)
        return gone

    def leave_all(self) -> list[Waiting[T]]:
        """The connection ends: all waiting jobs, taken out of the line."""
        with self._lock:
            gone, self.line = list(self.line), deque()
        return gone

    def rename(self, old: bytes, new: bytes) -> None:
        """A holder goes by another name now (it has joined another broker)."""
        if self.owner_holder == old:
            self.owner_holder = new
        with self._lock:
            for waiting in self.line:
                if waiting.holder == old:
                    waiting.holder = new

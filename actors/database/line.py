"""The line of statements for one database link, and the transaction that has the link.

Pure: no thread, clock or driver.

Statements run first come, first served, so no holder starves. While a transaction has the link,
only the statements of that transaction run; all others keep their places.

The event loop and the driver thread both take statements out of the line.
A lock guards the line and the stages of its statements.
"""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

__all__ = ["BARE", "Expiry", "Line", "Settled", "Stage", "Waiting", "decide_expiry"]

T = TypeVar("T")

BARE = b""
"""The token of a transaction that a statement (`BEGIN`) opened.
The transaction belongs to the holder of the statement, not to a block.
"""


class Stage(enum.Enum):
    """How far a statement has come."""

    NEW = "not in the line yet"
    WAITING = "in the line"
    TAKEN = "out of the line, for the driver thread"
    LEFT = "out of the line for good, and never to be run"


class Event(enum.Enum):
    """A move of a statement into the line or out of the line."""

    ADD = "it comes into the line"
    TAKE = "its turn has come"
    PUT_BACK = "a commit of several statements failed before it ran: it is next again"
    LEAVE = "its deadline passed, or its holder or the connection has ended"


STAGES = {
    (Stage.NEW, Event.ADD): Stage.WAITING,
    (Stage.WAITING, Event.TAKE): Stage.TAKEN,
    (Stage.WAITING, Event.LEAVE): Stage.LEFT,
    (Stage.TAKEN, Event.PUT_BACK): Stage.WAITING,
}
"""The stage that a statement reaches, by its stage before and the event. No other move is legal."""


@dataclass(slots=True, eq=False)
class Waiting(Generic[T]):
    """A statement for the line.

    `token` names the transaction of the statement; None outside of a transaction.
    """

    holder: bytes
    token: bytes | None
    job: T
    stage: Stage = Stage.NEW

    def move(self, event: Event) -> None:
        """Go on to the next stage. Raises KeyError for a move that `STAGES` does not list."""
        self.stage = STAGES[self.stage, event]


class Settled(NamedTuple):
    """What the end of a statement means for the link."""

    ended: bytes | None = None
    """Token of the transaction that is over now.
    The queries of that transaction are to be closed.
    """
    roll_back: bytes | None = None
    """Token of a transaction that has begun although no holder waits for it.
    The transaction is to be rolled back.
    """


class Expiry(enum.Enum):
    """What to do with a statement whose deadline has passed."""

    IGNORE = "it is answered"
    ANSWER = "answer it; it keeps its place, for nothing else would end the transaction"
    LEAVE = "take it out of the line and answer it"
    GIVE_UP = "the driver thread has it: see that it is not begun, or interrupt it"


_EXPIRIES = {
    # (whether it waits in the line, whether it rolls a transaction back)
    (True, True): Expiry.ANSWER,
    (True, False): Expiry.LEAVE,
    (False, True): Expiry.GIVE_UP,
    (False, False): Expiry.GIVE_UP,
}


def decide_expiry(stage: Stage, *, is_answered: bool, is_rollback: bool) -> Expiry:
    """What to do with a statement at `stage` when its deadline passes."""
    if is_answered or stage is Stage.LEFT:
        return Expiry.IGNORE
    return _EXPIRIES[stage is Stage.WAITING, is_rollback]


class Line(Generic[T]):
    """The waiting statements, and the transaction that has the link."""

    def __init__(self) -> None:
        self.waiting: deque[Waiting[T]] = deque()
        self._lock = threading.Lock()
        self.owner: bytes | None = None
        """Token of the transaction that has the link; None while no transaction is open.
        Written by the event loop, read by both threads.
        """
        self.owner_holder: bytes | None = None
        """The holder of that transaction."""

    def add(self, waiting: Waiting[T]) -> None:
        """Put a statement at the end of the line."""
        with self._lock:
            waiting.move(Event.ADD)
            self.waiting.append(waiting)

    def put_back(self, statements: list[Waiting[T]]) -> None:
        """Put statements that were taken out back to the front, in their order."""
        with self._lock:
            for waiting in statements:
                waiting.move(Event.PUT_BACK)
            self.waiting.extendleft(reversed(statements))

    def next(self) -> Waiting[T] | None:
        """Take out the next statement that may run.

        Returns None if no statement may run now.

        A statement whose transaction is over is not passed over while the link is free.
        The caller asks `stale` and must not run such a statement.
        """
        with self._lock:
            for waiting in self.waiting:
                if self.owner is None or self.may_enter(waiting.holder, waiting.token):
                    self.waiting.remove(waiting)
                    waiting.move(Event.TAKE)
                    return waiting
        return None

    def take_along(self, fits: Callable[[T], bool], most: int) -> list[Waiting[T]]:
        """Take up to `most` statements from the front, up to the first that does not fit.

        Only for a link that no transaction has.
        """
        found: list[Waiting[T]] = []
        with self._lock:
            while self.waiting and len(found) < most:
                front = self.waiting[0]
                if front.token is not None or not fits(front.job):
                    break
                front.move(Event.TAKE)
                found.append(self.waiting.popleft())
        return found

    def may_enter(self, holder: bytes, token: bytes | None) -> bool:
        """Whether a statement belongs to the open transaction."""
        if self.owner == BARE:
            return not token and holder == self.owner_holder
        return self.owner is not None and token == self.owner

    def stale(self, token: bytes | None) -> bool:
        """Whether the transaction `token` is over.

        The statements of such a transaction must not run, because
        outside of the transaction they have another meaning.
        """
        return token is not None and token != self.owner

    def settle(
        self, holder: bytes, begins: bytes | None, *, is_inside: bool, is_wanted: bool
    ) -> Settled:
        """Give the link to the transaction that is open after a statement, or to all statements.

        The driver is asked after each statement. A database may end a transaction without being
        asked (a full disk), and a statement may begin a transaction by other means than BEGIN.

        `holder`: the holder of the statement.
        `begins`: token of the block that the statement was to begin.
        `is_inside`: the driver is in a transaction.
        `is_wanted`: the holder still waits for the transaction.
        """
        if not is_inside:
            ended = self.owner
            self.end()
            return Settled(ended=ended)
        if self.owner is not None:
            return Settled()
        token = begins or BARE
        self.begin(token, holder)
        return Settled() if is_wanted else Settled(roll_back=token)

    def begin(self, token: bytes, holder: bytes) -> None:
        """Give the link to a transaction."""
        self.owner, self.owner_holder = token, holder

    def end(self) -> None:
        """Take the link from the transaction that is over."""
        self.owner = self.owner_holder = None

    def find(self, matches: Callable[[Waiting[T]], bool]) -> list[Waiting[T]]:
        """The waiting statements for which `matches` is true.

        The driver thread may take them meanwhile, so the result of `remove` decides.
        """
        with self._lock:
            return [waiting for waiting in self.waiting if matches(waiting)]

    def remove(self, waiting: Waiting[T]) -> bool:
        """Take a statement out of the line for good.

        Returns False if the statement was not in the line any more, for example because the
        driver thread has taken it.
        """
        with self._lock:
            try:
                self.waiting.remove(waiting)
            except ValueError:
                return False
            waiting.move(Event.LEAVE)
        return True

    def leave(self, holder: bytes) -> list[Waiting[T]]:
        """Take out the waiting statements of a holder that has left, and return them."""
        with self._lock:
            gone = [w for w in self.waiting if w.holder == holder]
            self.waiting = deque(w for w in self.waiting if w.holder != holder)
            for waiting in gone:
                waiting.move(Event.LEAVE)
        return gone

    def leave_all(self) -> list[Waiting[T]]:
        """Take out all waiting statements, because the connection ends, and return them."""
        with self._lock:
            gone, self.waiting = list(self.waiting), deque()
            for waiting in gone:
                waiting.move(Event.LEAVE)
        return gone

    def rename(self, old: bytes, new: bytes) -> None:
        """Give a holder its new name, because the holder has joined another broker."""
        if self.owner_holder == old:
            self.owner_holder = new
        with self._lock:
            for waiting in self.waiting:
                if waiting.holder == old:
                    waiting.holder = new

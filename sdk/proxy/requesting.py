"""Requests of an object to its worker. Each request is sent once, and is answered or known to have
failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from trunkline.deadline import Deadline
from trunkline.errors import ClosedError, DeadHandle, OperationTimeout
from trunkline.proxy.membership import ATTACH_S, Membership
from trunkline.proxy.process import Client
from trunkline.wire import messages
from trunkline.wire.envelope import Kind

__all__ = ["GRACE_S", "Requests"]

GRACE_S = 0.25
"""The worker keeps the deadline of a request. The caller waits so many seconds longer for the
worker's answer, which says more than a timeout here."""
REPLACE_S = 10.0
"""Seconds that a statement waits for the successor of a crashed worker."""
REPLACE_LOOK_S = 0.01
"""Seconds between two attempts to reach that worker."""
JOIN_LOOK_S = 0.002
"""Seconds between two looks whether the control thread has joined the connection."""

Part = Callable[[bytes], None]
"""A callback for a part of an answer that comes before the answer's end."""


class Requests:
    """The requests of one object. Any thread may call these methods."""

    __slots__ = ("_member",)

    def __init__(self, member: Membership) -> None:
        self._member = member

    def request(
        self, kind: Kind, *fields: Any, body: bytes | None = None, deadline: Deadline
    ) -> list[bytes]:
        """Send a request once, and return the body of its answer.

        Raises ClosedError, DeadHandle, and the errors of `Route.request`.
        """
        member = self._member
        self.check_open()
        self.client_now(deadline)
        return member.route.request(kind, fields, body, deadline, lambda: member.closed)

    def request_until_taken(
        self,
        kind: Kind,
        fields: tuple[Any, ...],
        body: bytes,
        deadline: Deadline,
        part: Part | None = None,
    ) -> list[bytes]:
        """Send a request, and return the body of its answer.

        A request to a database is sent again where certainly no worker has begun with it: between a
        crashed worker and the next one, for `REPLACE_S` at most. `fields` go behind the holder's
        name, `part` takes the parts of the answer before the last.
        """
        member = self._member
        patience = Deadline(min(REPLACE_S, deadline.left()) if member.about.executes else 0)
        while True:
            self.check_open()
            # Before the next line, because a forked child gets a new name here.
            self.client_now(deadline)
            whole = (member.holder_id, *fields)
            answer = member.route.try_request(
                kind,
                whole,
                body,
                deadline,
                lambda: member.closed,
                part,
                patience=patience,
                can_redial=member.redial is not None,
            )
            if answer is not None:
                return answer
            self._hear_of_end()
            time.sleep(REPLACE_LOOK_S)

    def check_open(self) -> None:
        """Raise ClosedError for a closed object, DeadHandle when the connection has ended."""
        member = self._member
        if member.closed:
            by = " by the program's end" if member.client.program_ends else ""
            raise ClosedError(
                f"this object of {member.about.peer} was closed{by}; dial again, or Dial its handle"
            )
        if member.gone is not None:
            if "has ended" in member.gone:  # the broker's own sentence, with its advice
                raise DeadHandle(member.gone)
            raise DeadHandle(
                f"the connection to {member.about.peer} has ended ({member.gone}); dial again"
            )

    def client_now(self, deadline: Deadline) -> Client:
        """The client of this process, once this object is a holder in good order.

        In a forked child the object first becomes a holder of its own. After an exception that has
        interrupted the stream socket, the connection is first joined anew. OperationTimeout when
        that takes too long: until `GRACE_S` before the deadline, for the rest is for the worker's
        answer.
        """
        member = self._member
        limit = Deadline(min(ATTACH_S, max(0.0, deadline.left() - GRACE_S)))
        while (
            (not member.route.is_joined or member.resync)
            and not member.closed
            and member.gone is None
        ):
            member.ask_to_join(limit)
            if limit.expired():
                raise OperationTimeout(
                    f"the connection to {member.about.peer} could not be joined in the time allowed"
                )
            time.sleep(min(JOIN_LOOK_S, limit.left()))
        self.check_open()
        return member.client

    def _hear_of_end(self) -> None:
        """Find out whether the worker is gone for good.

        The broker tells so on the stream socket, which no read empties for a database connection.
        """
        self._member.turn.run(0, self._hear_of_end_in_turn)

    def _hear_of_end_in_turn(self) -> None:
        """With the turn held: look through the messages for a GONE that ends the connection."""
        member = self._member
        if member.closed or not member.in_order():
            return
        while (received := member.route.peek(0)) is not None:
            if received.kind is Kind.GONE:
                gone = messages.Gone(*received.fields)
                if not gone.goes_on:
                    member.gone = member.gone or f"{gone.reason}{self._what_is_lost()}"
            member.route.done()

    def _what_is_lost(self) -> str:
        """A note for the text of the error, where a SQLite database was in the memory of the
        worker."""
        member = self._member
        memory = member.about.scheme == "sqlite3" and (
            ":memory:" in member.about.peer or "mode=memory" in member.about.peer
        )
        return "; its database was in memory, so the data is gone too" if memory else ""

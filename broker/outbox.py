"""The broker's messages to programs and workers.

The socket is behind the function `send`, so tests see the messages without a socket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trunkline.broker.directory import Connection
from trunkline.broker.incoming import Incoming
from trunkline.errors import TrunklineError, to_wire
from trunkline.wire import values
from trunkline.wire.envelope import BROKER, Kind, header

__all__ = ["Outbox"]


class Outbox:
    """Sends the broker's messages through `send`.

    `send` takes the frames of a message, the receiver's routing id first. It returns whether the
    receiver has a socket that takes the message.
    """

    def __init__(self, send: Callable[[list[bytes]], bool]) -> None:
        self.send = send

    def say(
        self, to: bytes, kind: Kind, request_id: int = 0, *fields: Any, sender: bytes = BROKER
    ) -> bool:
        """Send a message without a body. Returns whether the receiver is there.

        `sender`: the connection in whose name the broker speaks.
        """
        return self.send([to, sender, header(kind, request_id, *fields)])

    def reply(self, question: Incoming, value: Any) -> None:
        """Answer a request with a value."""
        head = header(Kind.REPLY, question.request_id)
        self.send([question.sender, BROKER, head, values.pack(value)])

    def refuse(self, question: Incoming, kind: Kind, error: TrunklineError) -> None:
        """Answer a message with an error. `kind`: FAILED for OPEN and ATTACH, ERROR for
        requests."""
        self.say(question.sender, kind, question.request_id, to_wire(error))

    def tell_holders(self, connection: Connection, *, final: bool) -> None:
        """Tell the holders that their connection's worker is gone. `final`: no worker follows."""
        for holder in connection.holders:
            fields = (not final, connection.reason, connection.serving)
            self.say(holder, Kind.GONE, 0, *fields, sender=connection.id)

    def log_for_users(self, connection: Connection, text: str, *, level: str = "warning") -> None:
        """Send a line to the logs of a connection's programs. `level`: as in `logging`."""
        for control in connection.listeners():
            self.say(control, Kind.LOG, 0, level, text)

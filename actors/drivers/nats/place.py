"""What the next link of a connection has to know of the former links. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Place"]


@dataclass(slots=True)
class Place:
    """How far reading a stream has come, over all links of a connection."""

    next: int | None = None
    """The number of the next message in the stream; None before there was a consumer."""
    created: Any = None
    """When the stream was made. A stream of the same name with another time is read from its
    beginning.
    """
    pending: int = 0
    """How many messages of the stream were still to come, as the server last said."""
    durable: bool = False
    """Whether the durable consumer has existed."""
    made: Any = None
    """When the consumer was made. A user who makes the consumer anew wants the messages delivered
    again.
    """
    read: dict[int, int] = field(default_factory=dict)
    """The acknowledged messages of former links: number in the stream, and time.

    The number alone is not enough: a server that has lost the end of its stream gives the same
    numbers to other messages.
    """
    unread: dict[int, int] = field(default_factory=dict)
    """The same for messages that former links handed over without an acknowledgement."""

    def forget(self) -> None:
        """Forget the messages: every further message is new."""
        self.read, self.unread = {}, {}

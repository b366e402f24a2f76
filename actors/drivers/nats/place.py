"""What a connection's next link has to know of the former ones. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Place"]


@dataclass(slots=True)
class Place:
    """Where reading a stream has come to, over all links of a connection."""

    next: int | None = None
    """The stream sequence that comes next; None before there was a consumer."""
    created: Any = None
    """When the stream was made: another stream of the same name starts anew."""
    pending: int = 0
    """How many messages of the stream were still to come, as last heard."""
    durable: bool = False
    """The durable consumer was there."""
    made: Any = None
    """When the consumer was made: whoever makes it anew wants the messages again."""
    read: dict[int, int] = field(default_factory=dict)
    """What former links acknowledged: stream sequence and time. The sequence alone is not enough: a server
    that lost the end of its stream gives the same sequences again, to other messages."""
    unread: dict[int, int] = field(default_factory=dict)
    """The same for what they handed over and did not acknowledge."""

    def forget(self) -> None:
        """Every message that comes now is new."""
        self.read, self.unread = {}, {}

"""What the parts of a stream need of the worker process that they run in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from trunkline.actors.process.mailbox import Mailbox
from trunkline.address import Address
from trunkline.wire.ledger import Ledger
from trunkline.wire.stats import Stats

__all__ = ["Host"]


class Host(Protocol):
    """The worker of one connection. `mailbox` and `ledger` are there after the actor only, and are replaced
    when the broker is, so a part of the stream asks for them each time."""

    @property
    def address(self) -> Address: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def mailbox(self) -> Mailbox: ...
    @property
    def ledger(self) -> Ledger | None:
        """Keeps the counters where they outlive this process; None where that is not possible."""

    @property
    def holders(self) -> Mapping[bytes, bytes]:
        """The sockets of the control threads, by the names of their holders."""

    @property
    def record(self) -> dict[str, Any]: ...
    @property
    def incarnation(self) -> int: ...
    @property
    def succeeds(self) -> bool:
        """A worker before this one had a link."""

    def base_stats(self) -> Stats:
        """The figures of the workers before this one."""

    def inherited(self) -> dict[str, Any]:
        """What the driver of the worker before this one has left for the next driver."""

    def former(self) -> dict[bytes, int]:
        """How many messages each holder was given by the workers before this one."""

    def say_state(self) -> None:
        """Tell the broker now that the state of the connection changed."""

    def log(self, level: str, text: str) -> None:
        """Write one line into the log of every program that holds this connection."""

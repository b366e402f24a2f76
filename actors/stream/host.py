"""The interface of the worker process to the parts of a stream."""

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
    """The worker of one connection.

    The worker makes `mailbox` and `ledger` after the actor, and replaces both for a new broker. The
    parts of a stream must not keep a reference to either."""

    @property
    def address(self) -> Address: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def mailbox(self) -> Mailbox: ...
    @property
    def ledger(self) -> Ledger | None:
        """The file with the counters, which outlives this process; None without a file."""

    @property
    def holders(self) -> Mapping[bytes, bytes]:
        """The sockets of the control threads, by holder."""

    @property
    def record(self) -> dict[str, Any]: ...
    @property
    def incarnation(self) -> int: ...
    @property
    def succeeds(self) -> bool:
        """Whether a former worker of this connection had a link."""

    def base_stats(self) -> Stats:
        """The figures of the former workers."""

    def inherited(self) -> dict[str, Any]:
        """Values from the former worker's driver for the next driver."""

    def former(self) -> dict[bytes, int]:
        """Messages of former workers by holder, as the former workers counted them."""

    def say_state(self) -> None:
        """Tell the broker now that the state of the connection has changed."""

    def log(self, level: str, text: str) -> None:
        """Write one line into the log of every program that holds this connection."""

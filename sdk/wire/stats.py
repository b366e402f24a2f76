"""The figures of a connection: counters that only grow, and a few gauges."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

__all__ = ["Stats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A snapshot of one connection, as `Connection.stats()` returns it. Holds no secret.

    Every received message counts as read, buffered, dropped, skipped or returned, and only once:
    `messages_in == read + buffered + dropped + skipped + returned` while no reader is reading.
    """

    id: str = ""
    """The number in `trunkline ps`, and for `trunkline kill`."""
    scheme: str = ""
    kind: str = "stream"
    """`stream` (read and written) or `database` (executes statements)."""
    lost_is_none: bool = False
    """Whether a lost link reads as None; else as `""`."""
    comes_again: bool = False
    """Whether the message broker sends unacknowledged messages again after a crash."""
    acknowledges: bool = False
    """Whether the peer waits for acknowledgements. With `receive(ack=False)` the program
    acknowledges."""
    peer: str = ""
    """The program at the other end of the link, without secrets."""
    state: str = "dialing"
    """A value of `trunkline.wire.state.State`."""
    pid: int | None = None
    """The worker's process id; None while no worker runs."""
    incarnation: int = 1
    """1 for the first worker of this connection, and 1 more for each replacement."""
    opened_at: float = 0.0
    """Wall clock seconds of the first successful dial."""
    messages_in: int = 0
    bytes_in: int = 0
    messages_out: int = 0
    bytes_out: int = 0
    read: int = 0
    """Messages taken by readers."""
    buffered: int = 0
    """Messages received and not taken by a reader yet."""
    queued: int = 0
    """Buffered messages that are still with the worker: a crash would lose them."""
    peak: int = 0
    """The highest value of `buffered` so far."""
    dropped: int = 0
    """Messages thrown away because the buffer was full, or lost with a crashed worker."""
    skipped: int = 0
    """Messages discarded by `read(-2)` or `seek`."""
    returned: int = 0
    """Unread messages of a crashed worker. The message broker sends them again."""
    redelivered: int = 0
    """Messages that may have been delivered before, as the message broker said."""
    lag: int | None = None
    """Messages that the message broker has for this connection and that no reader has taken.

    Messages in the buffer are included. The value is the message broker's last report. None where
    the scheme reports no lag, or the link is down.
    """
    errors: int = 0
    """Messages that could not be decompressed, and further faults that did not end the link."""
    reconnects: int = 0
    """How often the link was established again."""
    outages: int = 0
    """How often the link was lost."""
    statements: int = 0
    """Statements executed."""
    rows: int = 0
    """Rows returned by statements, those of running statements included."""
    queries: int = 0
    """Queries (`Connection.query`) with rows left to take."""
    holders: int = 0
    """Objects attached to the connection now."""
    last_error: str | None = None
    last_message_at: float | None = None
    """Wall clock seconds of the last received message."""

    def to_wire(self) -> dict[str, Any]:
        """The figures as a dict of plain values."""
        return {name: getattr(self, name) for name in _NAMES}

    @classmethod
    def from_wire(cls, data: dict[str, Any]) -> Stats:
        """Make figures from a dict; unknown names are ignored, missing ones have their default."""
        return cls(**{name: value for name, value in data.items() if name in _NAMES})


_NAMES = tuple(field.name for field in fields(Stats))

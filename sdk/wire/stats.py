"""The figures of a connection: counters that only grow, and a few gauges."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

__all__ = ["Stats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A snapshot of one connection, as `Connection.stats()` returns it. Holds no secret.

    Every message received is in exactly one of: read, buffered, dropped, skipped, returned
    (`messages_in == read + buffered + dropped + skipped + returned` once readers are at rest).
    """

    id: str = ""
    """The number that `trunkline ps` shows and `trunkline kill` takes."""
    scheme: str = ""
    kind: str = "stream"
    """`stream` (it is read and written) or `database` (it executes statements): what its driver is."""
    lost_is_none: bool = False
    """Whether a lost link reads as None; else as `""`."""
    comes_again: bool = False
    """Whether the message broker keeps what was not acknowledged, and sends it again after a crash."""
    acknowledges: bool = False
    """Whether the peer waits for acknowledgements, which `receive(ack=False)` leaves to the program."""
    peer: str = ""
    """Who is at the other end; no secret."""
    state: str = "dialing"
    """One of `trunkline.wire.state.State`."""
    pid: int | None = None
    """The worker's process id; None while there is no worker."""
    incarnation: int = 1
    """1 for the first worker of this connection, one more for each that replaced a crashed one."""
    opened_at: float = 0.0
    """Wall clock seconds of the first successful dial."""
    messages_in: int = 0
    bytes_in: int = 0
    messages_out: int = 0
    bytes_out: int = 0
    read: int = 0
    """Messages a reader has taken."""
    buffered: int = 0
    """Messages received that no reader has taken yet."""
    queued: int = 0
    """Of those, messages still with the worker: what its crash would lose."""
    peak: int = 0
    """The most that ever were buffered."""
    dropped: int = 0
    """Messages thrown away because the buffer was full, or lost with a crashed worker."""
    skipped: int = 0
    """Messages discarded by `read(-2)` or `seek`."""
    returned: int = 0
    """Messages that a crashed worker had and nobody had read: the message broker sends them again."""
    redelivered: int = 0
    """Messages of which the message broker said that they may have been delivered before."""
    lag: int | None = None
    """Messages that the message broker has for this connection and that no reader has taken, those in the
    buffer included, as the broker last said; None where the scheme does not tell or the link is down."""
    errors: int = 0
    """Messages that could not be decompressed, and other faults that did not end the link."""
    reconnects: int = 0
    """Successful re-establishments of the link."""
    outages: int = 0
    """Times the link was lost."""
    statements: int = 0
    """Statements executed."""
    rows: int = 0
    """Rows those statements returned, and so far those of the ones that still run."""
    queries: int = 0
    """Queries (`Connection.query`) whose rows are not all taken yet."""
    holders: int = 0
    """Objects attached to the connection now."""
    last_error: str | None = None
    last_message_at: float | None = None
    """Wall clock seconds of the last message received."""

    def to_wire(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _NAMES}

    @classmethod
    def from_wire(cls, data: dict[str, Any]) -> Stats:
        return cls(**{name: value for name, value in data.items() if name in _NAMES})


_NAMES = tuple(field.name for field in fields(Stats))

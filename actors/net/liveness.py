"""Judging by counts of bytes whether a peer lives. Pure: the caller passes times and counts."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LONGEST_ANSWER_S", "Keepalive", "Quiet", "Traffic", "answer_time"]

LONGEST_ANSWER_S = 20.0
"""The longest default time for the answer to the protocol's own ping, for any `pingInterval`."""

SHORTEST_ANSWER_S = 1.0
"""The shortest default time: on a busy machine a living peer may need as long for an answer."""


class Traffic(NamedTuple):
    """Bytes over a link since it was opened. Only differences between two counts are used."""

    received: int
    """Bytes from the peer, also of incomplete messages."""
    sent: int = 0
    """Bytes that were handed out for the peer."""
    waiting: int = 0
    """The part of `sent` that the peer's machine has not taken yet."""
    data: int | None = None
    """The part of `received` that belongs to messages (not to pings, pongs and the like); None
    where unknown."""


def answer_time(every_s: float, timeout_ms: int | None, *, control: bool) -> float | None:
    """Seconds that a peer may stay silent after a keepalive; None for any time.

    `every_s`: seconds between two keepalives. `timeout_ms`: option `pingTimeout` in milliseconds
    (None: not given, 0: the peer need not answer). `control`: the keepalive is the protocol's own
    ping, which a peer has to answer. The default is twice `every_s`, at least
    `SHORTEST_ANSWER_S`, and with `control` at most `LONGEST_ANSWER_S`.
    """
    if timeout_ms is not None:
        return timeout_ms / 1000 or None
    answer_s = max(2 * every_s, SHORTEST_ANSWER_S)
    return min(answer_s, LONGEST_ANSWER_S) if control else answer_s


class Keepalive:
    """The wait for a sign of life after a keepalive.

    Any received byte is a sign of life. While the keepalive waits behind earlier data, the peer's
    machine taking such data is a sign of life too: the peer cannot answer a keepalive that has not
    arrived. Data taken later is no sign, because the kernel of a frozen program takes some data as
    well.
    """

    def __init__(self, answer_s: float | None) -> None:
        """`answer_s`: the result of `answer_time`."""
        self._answer_s = answer_s
        self._since: float | None = None
        """Since when the wait for a sign of life runs; None where no keepalive is unanswered."""
        self._received = -1
        self._taken = 0
        """Sent bytes that the peer's machine has taken, by the last look that counted."""
        self._ahead = 0
        """Bytes sent up to the keepalive. Once the peer's machine has taken as many, the
        keepalive has arrived."""

    def asked(self, now: float, traffic: Traffic) -> None:
        """Note that a keepalive was sent at `now` (seconds), or waits behind earlier data."""
        self.look(now, traffic)
        if self._since is None:
            self._since = now
            self._ahead = traffic.sent
            self._taken = traffic.sent - traffic.waiting

    def look(self, now: float, traffic: Traffic) -> bool:
        """Whether the peer counts as dead at `now`."""
        if traffic.received != self._received:
            self._received = traffic.received
            self._since = None
        if self._since is None or self._answer_s is None:
            return False
        taken = traffic.sent - traffic.waiting
        if self._taken < self._ahead and taken > self._taken:
            self._since, self._taken = now, taken
        return now - self._since >= self._answer_s

    def excuse(self) -> None:
        """Note that the driver is paused: silence does not count, because nothing is read now."""
        self._since = None

    def due(self) -> float:
        """The latest time for the next `look`, in seconds of the same clock."""
        if self._since is None or self._answer_s is None:
            return float("inf")
        return self._since + self._answer_s


class Quiet:
    """Whether a link has been without data for too long (option `idle`).

    An incomplete message counts as data, by `Traffic.data`. Pings and pongs do not count.
    """

    def __init__(self, limit_s: float, now: float) -> None:
        self._limit_s = limit_s
        self._data_at = now
        self._data: int | None = None

    def look(self, now: float, message_at: float, data: int | None) -> bool:
        """Whether the limit is exceeded at `now`. `message_at`: the time of the last message."""
        if data is not None:
            if self._data is not None and data > self._data:
                self._data_at = now
            self._data = data
        self._data_at = max(self._data_at, message_at)
        return now - self._data_at >= self._limit_s

    def excuse(self, now: float) -> None:
        """Note that the driver is paused: silence does not count, because nothing is read now."""
        self._data_at = now

    def left(self, now: float) -> float:
        """Seconds until the next `look` is needed."""
        return max(0.0, min(self._data_at + self._limit_s - now, self._limit_s / 4))

"""Whether the peer of a link still lives, judged by bytes. Pure: the caller has the clock and the counts."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LONGEST_ANSWER_S", "Keepalive", "Quiet", "Traffic", "answer_time"]

LONGEST_ANSWER_S = 20.0
"""The protocol's own ping has to be answered within this time, however long `pingInterval` is."""

SHORTEST_ANSWER_S = 1.0
"""The default is not shorter: a busy machine takes as long to let a living peer answer."""


class Traffic(NamedTuple):
    """What has gone over a link since it was opened, in bytes. Only differences between two looks count."""

    received: int
    """Everything that came from the peer, whole messages or not."""
    sent: int = 0
    """Everything that was given out for the peer."""
    waiting: int = 0
    """The part of `sent` that the peer's machine has not taken yet."""
    data: int | None = None
    """The part of `received` that belongs to messages, not to pings, pongs and the like; None: not known."""


def answer_time(every_s: float, timeout_ms: int | None, *, control: bool) -> float | None:
    """For how many seconds a peer may send nothing after a keepalive; None for any time.

    `every_s` is the time between two keepalives and `timeout_ms` the option `pingTimeout` (None: not given,
    0: the peer need not answer). By default it is the time of two keepalives, `SHORTEST_ANSWER_S` at least,
    and with the protocol's own ping (`control`), which a peer has to answer, `LONGEST_ANSWER_S` at most.
    """
    if timeout_ms is not None:
        return timeout_ms / 1000 or None
    answer_s = max(2 * every_s, SHORTEST_ANSWER_S)
    return min(answer_s, LONGEST_ANSWER_S) if control else answer_s


class Keepalive:
    """Keepalives that wait for a sign of life.

    Any byte received is one. While the keepalive still waits behind our own data, so is the peer's taking of
    them: it cannot answer what it has not received. Data that it takes later are none, for the kernel of a
    peer whose program is frozen takes some, too.
    """

    def __init__(self, answer_s: float | None) -> None:
        """`answer_s` as from `answer_time`."""
        self._answer_s = answer_s
        self._since: float | None = None
        self._received = -1
        self._taken = 0
        self._ahead = 0

    def asked(self, now: float, traffic: Traffic) -> None:
        """A keepalive was sent, or waits for our own data to be sent before it. `now` in seconds."""
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
        """Nothing is read from the peer now, so that its silence means nothing."""
        self._since = None

    def due(self) -> float:
        """When to look again at the latest, in seconds of the same clock."""
        if self._since is None or self._answer_s is None:
            return float("inf")
        return self._since + self._answer_s


class Quiet:
    """Whether a link has been without data for too long (option `idle`).

    A message that is still on its way is data: it is seen by `Traffic.data`. Pings and pongs are none.
    """

    def __init__(self, limit_s: float, now: float) -> None:
        self._limit_s = limit_s
        self._data_at = now
        self._data: int | None = None

    def look(self, now: float, message_at: float, data: int | None) -> bool:
        """Whether it has been too long at `now`. `message_at` is when the last message came."""
        if data is not None:
            if self._data is not None and data > self._data:
                self._data_at = now
            self._data = data
        self._data_at = max(self._data_at, message_at)
        return now - self._data_at >= self._limit_s

    def excuse(self, now: float) -> None:
        """Nothing is read from the peer now, so that its silence means nothing."""
        self._data_at = now

    def left(self, now: float) -> float:
        """For how many seconds there need be no other look."""
        return max(0.0, min(self._data_at + self._limit_s - now, self._limit_s / 4))

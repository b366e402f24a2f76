"""Messages that have come and wait for room in the worker's buffer. No I/O but the sink.

While the buffer is full, the link must still be read, because confirmations of writes come over it,
too. For QoS 1 and 2 the broker sends no more messages than may be unacknowledged. Where even these
are too many, the link is not read for a while. For QoS 0 the newest messages are dropped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from trunkline.actors.driver import Delivery, Sink

__all__ = ["PACKET_IDS", "Intake"]

PACKET_IDS = 65_535
"""The number of packet ids, and so the most messages that can be unacknowledged."""
_HELD = 2000
"""QoS 0 messages that are kept while the buffer of a qos=1 or qos=2 connection is full."""
_MOST_BYTES = 64 * 1024 * 1024
"""Reading stops when messages of so many bytes wait here for room in the buffer."""


class Intake:
    """The messages of one connection on their way to `sink`.

    `buffer`: how many messages may be unread.
    """

    def __init__(self, sink: Sink, buffer: int) -> None:
        self._sink = sink
        self._buffer = buffer
        self.is_open = False
        """Whether the link is open. Before, no message is handed over, because another server may
        be tried next.
        """
        self.is_over = False
        """Whether the link has ended. The limits on handing over messages then do not count."""
        self.is_paused = False
        """Whether the worker's buffer is full."""
        self.is_throttled = False
        """Whether the link is not read because too much waits here."""
        self.acks_early = False
        """Whether messages are acknowledged when the buffer has taken them, and not when a reader
        has had them.
        """
        self._has_limit = False
        self._most = max(_HELD, 2 * buffer)
        """Reading stops when so many messages of QoS 1 and 2 wait here for room in the buffer."""
        self._arrived: list[Delivery] = []
        self._held: list[Delivery] = []
        """Messages without room in the buffer, older than the messages in `_arrived`."""
        self._waiting = 0
        """How many messages of QoS 1 and 2 wait here; the next attribute has their bytes."""
        self._waiting_bytes = 0
        self._unread = 0
        """How many messages of QoS 1 and 2 were handed over and not read."""

    def begin_link(self) -> None:
        """Forget all messages for another link.

        Packet ids of one server must not be acknowledged to another.
        """
        self.is_over = False
        self._arrived, self._held = [], []
        self._waiting = self._waiting_bytes = self._unread = 0

    def set_limits(self, *, has_limit: bool, v5: bool, acks_early: bool) -> None:
        """Set the limits of the link.

        `has_limit`: QoS 1 or 2, where no more messages may be unread than the buffer holds. `v5`:
        MQTT 5, where the broker was told how many messages it may send. `acks_early`: see the
        attribute.
        """
        self._has_limit = has_limit
        self._most = PACKET_IDS if v5 else max(_HELD, 2 * self._buffer)
        self.acks_early = acks_early

    # messages come

    def add(self, delivery: Delivery) -> None:
        """Keep a message until the buffer has room."""
        if delivery.token is not None:
            self._waiting += 1
            self._waiting_bytes += len(delivery.data)
        self._arrived.append(delivery)

    def note_read(self, count: int) -> None:
        """Note that readers have had so many messages of QoS 1 and 2."""
        self._unread -= count

    @property
    def held_count(self) -> int:
        """How many messages found no room."""
        return len(self._held)

    @property
    def has_too_many(self) -> bool:
        """Whether the broker has sent more messages than there are packet ids, which breaks the
        protocol.
        """
        return self._waiting > PACKET_IDS

    @property
    def has_too_much(self) -> bool:
        """Whether the waiting messages exceed a limit, and the link must not be read."""
        return self._waiting >= self._most or self._waiting_bytes >= _MOST_BYTES

    @property
    def may_read_on(self) -> bool:
        """Whether the link is not being read and at most half of the limit still waits."""
        if not self.is_throttled or not self.is_open:
            return False
        return self._waiting <= self._most // 2 and self._waiting_bytes <= _MOST_BYTES // 2

    # messages go

    def deliver(self) -> Sequence[Any]:
        """Hand over messages as far as the buffer has room.

        Return the tokens to be acknowledged at once.
        """
        if not self.is_open:
            return ()
        ready = self._take_ready()
        if not ready:
            return ()
        owed = [each for each in ready if each.token is not None]
        self._unread += len(owed)
        self._waiting -= len(owed)
        self._waiting_bytes -= sum(len(each.data) for each in owed)
        self._sink.deliver(ready)
        return [each.token for each in owed] if self.acks_early else ()

    def _take_ready(self) -> list[Delivery]:
        """Return as many messages as have room, the oldest first, and hold the remaining
        messages.
        """
        arrived, self._arrived = self._arrived, []
        if not self._held and not self.is_paused and len(arrived) <= self._room():
            return arrived
        self._hold(arrived)
        room = 0 if self.is_paused else self._room()
        ready, self._held = self._held[:room], self._held[room:]
        return ready

    def _room(self) -> int:
        """Return how many messages may be handed over."""
        if not self._has_limit or self.is_over:
            return sys.maxsize
        return max(0, self._buffer - self._unread)

    def _hold(self, arrived: list[Delivery]) -> None:
        """Hold messages, and drop QoS 0 messages beyond the limit."""
        dropped = 0
        for each in arrived:
            if each.token is None and len(self._held) >= _HELD:
                dropped += 1
            else:
                self._held.append(each)
        if dropped:
            self._sink.dropped(dropped)

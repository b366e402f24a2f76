"""Messages that have come and wait for room in the worker's buffer. No I/O but the sink.

The link must go on being read while the buffer is full, for confirmations come over it, too. Of QoS 1 and 2
the broker sends no more than may be unacknowledged; where that is too much the link is not read for a while.
Of QoS 0 the newest messages are dropped then.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from trunkline.actors.driver import Delivery, Sink

__all__ = ["PACKET_IDS", "Intake"]

PACKET_IDS = 65_535
"""So many packet ids there are, and no more messages that are not acknowledged."""
_HELD = 2000
"""QoS 0 messages kept while the buffer of a qos=1 or qos=2 connection is full."""
_MOST_BYTES = 64 * 1024 * 1024
"""Messages of so many bytes wait here for room in the buffer before nothing more is read."""


class Intake:
    """What came over one connection, on its way to `sink`. `buffer`: messages that may be unread there."""

    def __init__(self, sink: Sink, buffer: int) -> None:
        self._sink = sink
        self._buffer = buffer
        self.is_open = False
        """The link is open. Before that no message is handed over: perhaps another server is tried next."""
        self.is_over = False
        """The link has ended: all that came is handed over."""
        self.is_paused = False
        """The worker's buffer is full."""
        self.is_throttled = False
        """Too much waits here: the link is not read."""
        self.acks_early = False
        """Messages are acknowledged when the buffer has taken them, not when a reader has."""
        self._has_limit = False
        self._most = max(_HELD, 2 * buffer)
        """So many messages of QoS 1 and 2 wait here for room in the buffer before nothing more is read."""
        self._arrived: list[Delivery] = []
        self._held: list[Delivery] = []
        """Messages for which there was no room; those in `_arrived` come after them."""
        self._waiting = 0
        """How many messages of QoS 1 and 2 wait here, and their bytes."""
        self._waiting_bytes = 0
        self._unread = 0
        """Messages of QoS 1 and 2 handed over that no reader has."""

    def begin_link(self) -> None:
        """Another link is tried. What another server has sent is none of this one's: its packet ids must not
        be acknowledged here."""
        self.is_over = False
        self._arrived, self._held = [], []
        self._waiting = self._waiting_bytes = self._unread = 0

    def set_limits(self, *, has_limit: bool, v5: bool, acks_early: bool) -> None:
        """`has_limit`: QoS 1 or 2, where no more may be unread than the buffer holds. With MQTT 5 (`v5`) the
        broker was told how much it may send."""
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
        """Readers have so many messages of QoS 1 and 2."""
        self._unread -= count

    @property
    def held_count(self) -> int:
        """How many messages found no room."""
        return len(self._held)

    @property
    def has_too_many(self) -> bool:
        """The broker has sent more than there are packet ids: it breaks the protocol."""
        return self._waiting > PACKET_IDS

    @property
    def has_too_much(self) -> bool:
        """So much waits here that the link is not to be read."""
        return self._waiting >= self._most or self._waiting_bytes >= _MOST_BYTES

    @property
    def may_read_on(self) -> bool:
        """The link was not read, and enough of what waited has gone."""
        if not self.is_throttled or not self.is_open:
            return False
        return self._waiting <= self._most // 2 and self._waiting_bytes <= _MOST_BYTES // 2

    # messages go

    def deliver(self) -> Sequence[Any]:
        """Hand over what came, as far as the buffer has room. The tokens to be acknowledged at once."""
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
        arrived, self._arrived = self._arrived, []
        if not self._held and not self.is_paused and len(arrived) <= self._room():
            return arrived
        self._hold(arrived)
        room = 0 if self.is_paused else self._room()
        ready, self._held = self._held[:room], self._held[room:]
        return ready

    def _room(self) -> int:
        if not self._has_limit or self.is_over:
            return sys.maxsize
        return max(0, self._buffer - self._unread)

    def _hold(self, arrived: list[Delivery]) -> None:
        dropped = 0
        for each in arrived:
            if each.token is None and len(self._held) >= _HELD:
                dropped += 1
            else:
                self._held.append(each)
        if dropped:
            self._sink.dropped(dropped)

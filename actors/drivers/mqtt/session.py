"""What one connection remembers of its MQTT session from one link to the next. Pure.

A driver object lives for one link, a session for as long as the broker keeps it. What must outlive a
link is here: the client id, which packet ids are taken, and by what a message is known when the broker sends
it again.

A packet id alone does not name a message: the broker uses it again for another one as soon as it has our
acknowledgement. So each id has a generation here, counted up when its acknowledgement goes out (QoS 1) or
when the broker says that it has it (QoS 2, PUBREL). What the broker sends again of the same generation is the
same message. After a PUBACK that may have been lost with the link nobody can know; then the message
is taken as a new one: QoS 1 promises at least once.

A broker that was killed may come back with the session as it was some time before ("session present" all the
same), and give ids that we hold to other messages. So a message is known by its id *and* its content (a hash
of topic and payload): else another message would be acknowledged unread.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Hashable

from trunkline.address import Address

__all__ = ["Session", "session_of"]


class Session:
    """See the module."""

    def __init__(self, client_id: str | None = None) -> None:
        # 23 characters of this kind are what every broker must take.
        self.client_id = client_id or f"tl-{uuid.uuid4().hex[:16]}"
        self.begun = False
        """A link of this connection was open before: a session may be resumed."""
        self.inherited = False
        """The broker had the session before our first link, from a former process: see `leftovers`."""
        self.removed: list[str] = []
        """Filters of a former process that are unsubscribed now."""
        self.comes_otherwise: set[str] = set()
        """Topics that are not asked for, and that no subscription brings."""
        self.reply_topic: str | None = None
        """Where answers to our requests come."""
        self.warned = False
        """The user was told what this kind of session does not hold."""
        self.server = 0
        """Which of several servers took us last."""
        self._epoch = 0
        self._generation: dict[int, int] = {}
        self._received: dict[int, int] = {}
        """The contents of QoS 2 messages by packet id, see `is_received`."""
        self._in_doubt: set[int] = set()
        # A former process may have left QoS 2 messages half sent; starting anywhere keeps clear of them.
        self._last_id = random.randrange(65_535)

    def begin(self, *, resumed: bool) -> None:
        """A link is open. Without the broker's half there is nothing to remember."""
        self.inherited = resumed and (self.inherited or not self.begun)
        self.begun = True
        if not resumed:
            self._epoch += 1
            self._generation.clear()
            self._received.clear()
            self._in_doubt.clear()

    # receiving

    def identity(self, packet_id: int, content: int) -> Hashable:
        """By what this message is known again. Another one than that which was received with this id shows
        that the broker has forgotten that."""
        if self._received.get(packet_id, content) != content:
            self.released(packet_id)
        return self._epoch, packet_id, self._generation.get(packet_id, 0), content

    def is_received(self, packet_id: int, content: int) -> bool:
        """Whether this QoS 2 message was read and acknowledged, and the broker has not said that it knows."""
        return self._received.get(packet_id) == content

    def acknowledged(self, packet_id: int, qos: int, content: int) -> None:
        """PUBACK or PUBREC goes out."""
        if qos == 2:
            self._received[packet_id] = content
        else:
            self._next(packet_id)

    def released(self, packet_id: int) -> None:
        """PUBREL came: the broker may use the id for another message."""
        self._received.pop(packet_id, None)
        self._next(packet_id)

    def _next(self, packet_id: int) -> None:
        self._generation[packet_id] = self._generation.get(packet_id, 0) + 1

    # sending

    @property
    def in_doubt(self) -> int:
        """How many QoS 2 messages the broker may hold half received. It is never told to go on with them (it
        would publish them after the outage), so their ids stay taken as long as the session lives."""
        return len(self._in_doubt)

    def next_id(self) -> int:
        """A packet id that is not in doubt."""
        while True:
            self._last_id = self._last_id % 65_535 + 1
            if self._last_id not in self._in_doubt:
                return self._last_id

    def left_in_doubt(self, packet_id: int) -> None:
        """The link broke between a QoS 2 message and its confirmation."""
        self._in_doubt.add(packet_id)


_sessions: dict[int, tuple[Address, Session]] = {}


def session_of(address: Address) -> Session:
    """The session of the connection whose address this very object is. A worker has one address, which all
    its driver objects are given."""
    found = _sessions.get(id(address))
    if found is None:
        found = _sessions[id(address)] = (address, Session(address.params.get("client_id") or None))
    return found[1]

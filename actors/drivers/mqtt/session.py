"""What one connection remembers of its MQTT session from one link to the next. No I/O.

A driver object lives for one link, a session as long as the broker keeps it. A session holds what
must outlive a link: the client id, the packet ids in use, and the marks by which repeated messages
are recognised.

A packet id alone does not name a message: the broker uses it for another message as soon as it has
the acknowledgement. So each id has a generation here. The generation is increased when the PUBACK
goes out (QoS 1) or when the broker sends PUBREL (QoS 2). A message that comes again in the same
generation is the same message. After a PUBACK that may have been lost with the link, the two cases
cannot be told apart. The message then counts as new, since QoS 1 promises at least once.

A broker that was killed may restore an older state of the session, and still report "session
present". It may then give other messages the ids of messages that are held here. So a message is
recognised by its id *and* its content (a hash of topic and payload). Otherwise another message
could be acknowledged unread.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Hashable

from trunkline.address import Address

__all__ = ["Session", "session_of"]


class Session:
    """The memory of one connection's session."""

    def __init__(self, client_id: str | None = None) -> None:
        # Every broker must accept 23 characters of these kinds.
        self.client_id = client_id or f"tl-{uuid.uuid4().hex[:16]}"
        self.begun = False
        """Whether a link of this connection was open before, so a session may be resumed."""
        self.inherited = False
        """Whether the broker had the session before the first link, from an earlier process: see
        `leftovers`.
        """
        self.removed: list[str] = []
        """Filters of an earlier process that were unsubscribed."""
        self.comes_otherwise: set[str] = set()
        """Topics outside the address whose messages no subscription brings."""
        self.reply_topic: str | None = None
        """The topic of answers to requests."""
        self.warned = False
        """Whether the user was told what the broker does not keep in such a session."""
        self.server = 0
        """The index of the server that accepted the connection last."""
        self._epoch = 0
        self._generation: dict[int, int] = {}
        self._received: dict[int, int] = {}
        """Hashes of the contents of QoS 2 messages by packet id, see `is_received`."""
        self._in_doubt: set[int] = set()
        # An earlier process may have left QoS 2 messages half sent. A random start avoids their
        # ids.
        self._last_id = random.randrange(65_535)

    def begin(self, *, resumed: bool) -> None:
        """Begin a link. Where the broker has not kept its half, all marks are cleared."""
        self.inherited = resumed and (self.inherited or not self.begun)
        self.begun = True
        if not resumed:
            self._epoch += 1
            self._generation.clear()
            self._received.clear()
            self._in_doubt.clear()

    # receiving

    def identity(self, packet_id: int, content: int) -> Hashable:
        """Return the mark by which a repeated message is recognised.

        Different content under the same id shows that the broker has released the id.
        """
        if self._received.get(packet_id, content) != content:
            self.released(packet_id)
        return self._epoch, packet_id, self._generation.get(packet_id, 0), content

    def is_received(self, packet_id: int, content: int) -> bool:
        """Whether this QoS 2 message was acknowledged and the broker has not sent PUBREL yet."""
        return self._received.get(packet_id) == content

    def acknowledged(self, packet_id: int, qos: int, content: int) -> None:
        """Note that PUBACK or PUBREC goes out."""
        if qos == 2:
            self._received[packet_id] = content
        else:
            self._next(packet_id)

    def released(self, packet_id: int) -> None:
        """Note a PUBREL: the broker may use the id for another message."""
        self._received.pop(packet_id, None)
        self._next(packet_id)

    def _next(self, packet_id: int) -> None:
        self._generation[packet_id] = self._generation.get(packet_id, 0) + 1

    # sending

    @property
    def in_doubt(self) -> int:
        """How many QoS 2 messages the broker may hold half received.

        The broker is never told to complete such a message, because publishing after the outage
        would be too late. The ids stay in use as long as the session lives.
        """
        return len(self._in_doubt)

    def next_id(self) -> int:
        """Return a packet id that is not in doubt."""
        while True:
            self._last_id = self._last_id % 65_535 + 1
            if self._last_id not in self._in_doubt:
                return self._last_id

    def left_in_doubt(self, packet_id: int) -> None:
        """Note that the link broke between a QoS 2 message and its confirmation."""
        self._in_doubt.add(packet_id)


_sessions: dict[int, tuple[Address, Session]] = {}


def session_of(address: Address) -> Session:
    """Return the session of the connection with this address object, which a worker gives to all
    drivers.
    """
    found = _sessions.get(id(address))
    if found is None:
        found = _sessions[id(address)] = (address, Session(address.params.get("client_id") or None))
    return found[1]

"""The unread messages of a stream, and the messages read lately. No I/O.

A crash of the server or the loss of a link loses acknowledgements, and read messages are delivered
again. The driver recognises a repeated message by its number in the stream, together with the time
at which the stream took it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from nats.aio.msg import Msg

from trunkline.actors.drivers.nats.place import Place

__all__ = ["Held", "HeldMessages"]

_REMEMBERED = 10_000
"""The least number of acknowledged messages that are recognised after an outage. A killed server
has forgotten the acknowledgements of its last moments.
"""


@dataclass(slots=True)
class Held:
    """An unread message."""

    msg: Msg
    told: float
    """When the server last heard of the message, in seconds of the monotonic clock."""
    stamp: int
    """When the stream took the message, in nanoseconds since 1970."""


class HeldMessages:
    """The messages delivered over one link, by number in the stream.

    `window`: how many messages may be unread at a time.

    Acknowledged messages are kept in two generations. A full younger generation replaces the older
    generation. The sum is between one and two times `_REMEMBERED` messages, at constant cost.
    """

    def __init__(self, place: Place, window: int) -> None:
        self._place = place
        self._window = window
        self._unread: dict[int, Held] = {}
        self._read: dict[int, int] = {}
        self._read_before: dict[int, int] = {}
        """Acknowledged messages of this link: the younger and the older generation."""

    def __len__(self) -> int:
        """How many messages are unread."""
        return len(self._unread)

    def get(self, sequence: int) -> Held | None:
        return self._unread.get(sequence)

    def all(self) -> list[Held]:
        return list(self._unread.values())

    def add(self, sequence: int, held: Held) -> None:
        self._unread[sequence] = held

    def take(self, sequence: int) -> Held | None:
        """Remove and return a message after reading or refusal.

        None where it is not held.
        """
        return self._unread.pop(sequence, None)

    def note_read(self, sequence: int, stamp: int) -> None:
        """Note a finished message: no reader is to get it again."""
        self._read[sequence] = stamp
        if len(self._read) >= _REMEMBERED:
            self._read_before, self._read = self._read, {}

    def was_read(self, sequence: int, stamp: int) -> bool:
        """Whether a reader had the message, over this link or a former link."""
        known = (self._read, self._read_before, self._place.read)
        return any(each.get(sequence) == stamp for each in known)

    def was_handed_over(self, sequence: int, stamp: int) -> bool:
        """Whether a former link handed the message over without acknowledging it.

        True only at the first call.
        """
        return self._place.unread.pop(sequence, None) == stamp

    def due_for_progress(self, now: float, seconds: float) -> list[Held]:
        """Return the messages of which the server has not heard for `seconds`, and count them as
        reported at `now`.
        """
        due = [held for held in self._unread.values() if now - held.told >= seconds]
        for held in due:
            held.told = now
        return due

    def leave_to_next_link(self) -> None:
        """Store in the place what the next link must recognise."""
        place = self._place
        unread = {sequence: held.stamp for sequence, held in self._unread.items()}
        place.unread = _last(max(_REMEMBERED, self._window), place.unread, unread)
        place.read = _last(_REMEMBERED, place.read, self._read_before, self._read)
        self._read, self._read_before = {}, {}

    def clear(self) -> None:
        """Forget the unread messages: the link is over.

        The server delivers them again, or they are lost.
        """
        self._unread.clear()


def _last(count: int, *known: dict[int, int]) -> dict[int, int]:
    """Join the dicts, the oldest first, and return the last `count` entries."""
    every = {sequence: stamp for each in known for sequence, stamp in each.items()}
    return dict(islice(every.items(), max(0, len(every) - count), None))

"""The messages of a stream that no reader has, and those that readers had lately. No I/O.

A server that crashes and a link that breaks lose acknowledgements, so that messages come again which readers
have had. Those are known by their stream sequence together with the time at which the stream took them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from nats.aio.msg import Msg

from trunkline.actors.drivers.nats.place import Place

__all__ = ["Held", "HeldMessages"]

_REMEMBERED = 10_000
"""So many acknowledged messages are known again after an outage, at the least: a server that is killed has
forgotten those of its last moments."""


@dataclass(slots=True)
class Held:
    """A message that no reader has."""

    msg: Msg
    told: float
    """When the server last heard of it, by the monotonic clock."""
    stamp: int
    """When the stream took it, in nanoseconds."""


class HeldMessages:
    """What one link has delivered, by stream sequence. `window`: so many may be unread."""

    def __init__(self, place: Place, window: int) -> None:
        self._place = place
        self._window = window
        self._unread: dict[int, Held] = {}
        self._read: dict[int, int] = {}
        self._read_before: dict[int, int] = {}
        """What this link acknowledged, the latest and those before them."""

    def __len__(self) -> int:
        """How many messages no reader has."""
        return len(self._unread)

    def get(self, sequence: int) -> Held | None:
        return self._unread.get(sequence)

    def all(self) -> list[Held]:
        return list(self._unread.values())

    def add(self, sequence: int, held: Held) -> None:
        self._unread[sequence] = held

    def take(self, sequence: int) -> Held | None:
        """A reader has the message, or has refused it; None where it is not here."""
        return self._unread.pop(sequence, None)

    def note_read(self, sequence: int, stamp: int) -> None:
        """The message is done with: it is to be given to no reader again."""
        self._read[sequence] = stamp
        if len(self._read) >= _REMEMBERED:
            self._read_before, self._read = self._read, {}

    def was_read(self, sequence: int, stamp: int) -> bool:
        """A reader had this message, over this link or a former one."""
        known = (self._read, self._read_before, self._place.read)
        return any(each.get(sequence) == stamp for each in known)

    def was_handed_over(self, sequence: int, stamp: int) -> bool:
        """A former link handed the message over, and it was not acknowledged. True once."""
        return self._place.unread.pop(sequence, None) == stamp

    def due_for_progress(self, now: float, seconds: float) -> list[Held]:
        """Messages of which the server has not heard for so long; they count as told then."""
        due = [held for held in self._unread.values() if now - held.told >= seconds]
        for held in due:
            held.told = now
        return due

    def leave_to_next_link(self) -> None:
        """Enter in the place what the next link has to know again."""
        place = self._place
        unread = {sequence: held.stamp for sequence, held in self._unread.items()}
        place.unread = _last(max(_REMEMBERED, self._window), place.unread, unread)
        place.read = _last(_REMEMBERED, place.read, self._read_before, self._read)
        self._read, self._read_before = {}, {}

    def clear(self) -> None:
        """The link is over: what no reader had comes again, or is lost."""
        self._unread.clear()


def _last(count: int, *known: dict[int, int]) -> dict[int, int]:
    """The last so many of all, those of the later dicts being later."""
    every = {sequence: stamp for each in known for sequence, stamp in each.items()}
    return dict(islice(every.items(), max(0, len(every) - count), None))

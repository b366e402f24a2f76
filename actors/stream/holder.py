"""One holder as the buffer sees the holder: entries sent, consumed and kept, and the open ask."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from trunkline.actors.stream.lane import Entry, Lane, Run

__all__ = ["Holder", "Kept"]

PENDING: Final = 64
"""The most marks that wait for a holder, when several holders read."""


class Kept(NamedTuple):
    """A kept message and its run: a reader has the message and has given no verdict yet."""

    data: str | bytes
    run: Run


@dataclass(slots=True)
class Holder:
    """One proxy object that reads from the buffer."""

    id: bytes
    epoch: int = 0
    consumed: int = 0
    """Entries that the holder has consumed, in total, by its last report."""
    window: int = 0
    """How many unacknowledged entries may be sent ahead while the holder is streamed to."""
    mode: Literal["stream", "ask", "recall"] = "ask"
    """`stream`: entries are sent ahead. `ask`: an entry answers an ask. `recall`: a recall is
    unanswered."""
    doubt: deque[Entry | None] = field(default_factory=deque)
    """The oldest sent entries, dropped during an overflow: a mark as the mark, a message as None.
    The holder's answer to the recall shows which of the messages were read nevertheless."""
    sent: Lane = field(default_factory=Lane)
    """Sent entries that the holder has not acknowledged, those in `doubt` excepted."""
    sent_bytes: int = 0
    """The length of the messages in `sent`."""
    out: int = 0
    """The number of messages in `sent`."""
    read: int = 0
    """Messages that the holder has consumed, discarded messages included."""
    discarded: int = 0
    """Messages that `read(-2)` has discarded, in total, by the holder's last report; below 0 where
    the total is not known yet."""
    envelopes: bool = False
    """The holder wants the time of arrival and the envelope of each message."""
    announced: dict[int, int] = field(default_factory=dict)
    """Tickets of messages that the holder will keep, by the later value of `consumed`."""
    kept: dict[int, Kept] = field(default_factory=dict)
    """Consumed messages without a verdict of the reader yet, by ticket."""
    asking: int = 0
    """The number of the open ask; 0 for none."""
    over: int = 0
    """Asks up to this number are answered, or given up."""
    pending: deque[Entry] = field(default_factory=deque)
    """Marks that the holder has yet to see. Every one of several holders sees every mark."""

    def show_mark(self, mark: Entry) -> None:
        """Add a mark for the holder to see. Beyond `PENDING` marks the oldest is dropped."""
        self.pending.append(mark)
        while len(self.pending) > PENDING:
            self.pending.popleft()

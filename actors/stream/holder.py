"""One holder as the buffer sees it: what it was sent, has consumed, keeps and asks for."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from trunkline.actors.stream.lane import Entry, Lane, Run

__all__ = ["Holder", "Kept"]

PENDING: Final = 64
"""Marks kept for one of several holders that does not read."""


class Kept(NamedTuple):
    """A message that a reader has and has not acknowledged yet, and what is known of it."""

    data: str | bytes
    run: Run


@dataclass(slots=True)
class Holder:
    """One proxy object that reads from the buffer."""

    id: bytes
    epoch: int = 0
    consumed: int = 0
    """Entries it is known to have consumed, in total."""
    window: int = 0
    """How many entries may be out, unacknowledged, while streaming."""
    mode: Literal["stream", "ask", "recall"] = "ask"
    doubt: deque[Entry | None] = field(default_factory=deque)
    """The oldest entries sent; None where the message was dropped unless it turns out to be consumed."""
    sent: Lane = field(default_factory=Lane)
    sent_bytes: int = 0
    out: int = 0
    """Messages in `sent`."""
    read: int = 0
    """Messages it has consumed, those it discarded included."""
    discarded: int = 0
    """Messages it has told that it discarded, by `read(-2)`, in total; below zero where that is not known."""
    envelopes: bool = False
    """It wants to know when each message came, and what came with it."""
    announced: dict[int, int] = field(default_factory=dict)
    """Tickets of messages that the holder keeps, by the value of `consumed` that will include the message."""
    kept: dict[int, Kept] = field(default_factory=dict)
    """Messages that the holder has and that are not settled yet, by their tickets."""
    asking: int = 0
    """The number of the ask that is not answered yet; 0 where there is none."""
    over: int = 0
    """Asks up to this number are answered, or given up."""
    pending: deque[Entry] = field(default_factory=deque)
    """Marks this holder has yet to see (several holders: each one sees each mark)."""

    def show_mark(self, mark: Entry) -> None:
        """The holder has yet to see this mark. Where it does not read, its oldest marks are dropped."""
        self.pending.append(mark)
        while len(self.pending) > PENDING:
            self.pending.popleft()

"""What a `Buffer` wants done: messages to its holders, and a word to the driver."""

from __future__ import annotations

from typing import NamedTuple

from trunkline.actors.driver import Delivery
from trunkline.actors.stream.lane import Entry, Run

__all__ = ["Action", "Notify", "Push", "Recall", "Stamp", "Throttle", "Welcome", "stamps_of"]


class Stamp(NamedTuple):
    """Of `entries` in a row: when they came, and the envelope of a single one."""

    entries: int
    at: int
    delivery: Delivery | None


class Push(NamedTuple):
    """Send entries to a holder. `stream`: more will come unasked; `more`: the buffer has more."""

    holder: bytes
    epoch: int
    stream: bool
    more: bool
    entries: list[Entry]
    first: int = 0
    """How many entries were sent before these: a holder that has another count has lost some on the way."""
    stamps: list[Stamp] | None = None
    """What is known of the entries, for a holder that wants it."""
    answer: int = 0
    """The number of the ask that this answers; 0 where nothing was asked."""


class Recall(NamedTuple):
    """Ask a holder to give back what it has not consumed; what it has of former epochs is void."""

    holder: bytes
    epoch: int
    elsewhere: bool = False
    """Reading goes on somewhere else: what the holder has of workers before this one is void, too."""


class Notify(NamedTuple):
    """Confirm to a holder that it no longer waits for the answer to this ask."""

    holder: bytes
    ask: int = 0


class Welcome(NamedTuple):
    """Tell a holder that it is served from now on."""

    holder: bytes


class Throttle(NamedTuple):
    """Stop (True) or go on (False) taking from the peer."""

    on: bool


Action = Push | Recall | Notify | Throttle | Welcome


def stamps_of(run: Run) -> list[Stamp]:
    """What a holder that wants envelopes is sent beside the entries of a run."""
    if run.batch is None:
        return [Stamp(run.count, run.at, None)]
    return [Stamp(1, run.at, delivery) for delivery in run.deliveries()]

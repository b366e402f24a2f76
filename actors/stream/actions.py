"""Actions of a `Buffer`: messages to send to its holders, and orders to the driver."""

from __future__ import annotations

from typing import NamedTuple

from trunkline.actors.driver import Delivery
from trunkline.actors.stream.lane import Entry, Run

__all__ = ["Action", "Notify", "Push", "Recall", "Stamp", "Throttle", "Welcome", "stamps_of"]


class Stamp(NamedTuple):
    """Time of arrival and envelope of some entries in a row."""

    entries: int
    """The number of entries in the row; 1 where there is an envelope."""
    at: int
    """Time of arrival: wall clock, nanoseconds."""
    delivery: Delivery | None
    """The envelope; None for messages without envelopes."""


class Push(NamedTuple):
    """Send entries to a holder. `stream`: more will come unasked. `more`: more are queued."""

    holder: bytes
    epoch: int
    stream: bool
    more: bool
    entries: list[Entry]
    first: int = 0
    """How many entries were sent before these. A holder with another count has lost a PUSH."""
    stamps: list[Stamp] | None = None
    """Times and envelopes of the entries; None for a holder that does not want envelopes."""
    answer: int = 0
    """The number of the answered ask; 0 where the entries were sent ahead."""


class Recall(NamedTuple):
    """Ask a holder to give back unconsumed entries. Entries of former epochs are void then."""

    holder: bytes
    epoch: int
    elsewhere: bool = False
    """The recall belongs to a seek: the holder's entries from former workers are void, too."""


class Notify(NamedTuple):
    """Confirm to a holder that the ask with this number is over."""

    holder: bytes
    ask: int = 0


class Welcome(NamedTuple):
    """Tell a holder that the worker serves the holder from now on."""

    holder: bytes


class Throttle(NamedTuple):
    """Have the driver stop (True) or continue (False) to take from the peer."""

    on: bool


Action = Push | Recall | Notify | Throttle | Welcome


def stamps_of(run: Run) -> list[Stamp]:
    """The stamps of a run: one for the whole run, or one for each message with an envelope."""
    if run.batch is None:
        return [Stamp(run.count, run.at, None)]
    return [Stamp(1, run.at, delivery) for delivery in run.deliveries()]

"""The report of the demo: whether the figures of the exchange, the strategy and the database add
up.

Pure. The exchange knows how many messages it sent on each link, numbered from 1. The strategy knows
the numbers it read. Messages missing before a link's last read message must be counted as dropped.
Messages missing after the last read message were lost with the link; if they reached a worker that
was killed, they are counted as dropped too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from trunkline.demo.ledger import Ledger, Tick

__all__ = ["Check", "LinkFigures", "Report", "Stored", "make_report"]

Stored = tuple[int, int, str, float]
"""A row of the database: seq, link, symbol, price."""


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """The figures of a link, from its subscription to its end."""

    link: int
    sent: int
    received: int
    missing: int
    """Messages before the last received message that were not received."""
    lost: int
    """Messages after the last received message."""


@dataclass(frozen=True, slots=True)
class Check:
    """An equation that must hold."""

    text: str
    left: int
    right: int

    @property
    def holds(self) -> bool:
        return self.left == self.right


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of all links, the equations that must hold, and the sums."""

    links: list[LinkFigures]
    checks: list[Check]
    totals: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return all(check.holds for check in self.checks)


def make_report(
    ledger: Ledger, result: Mapping[str, Any], stored: Sequence[Stored], kills: int
) -> Report:
    """The report of a run.

    `result` is the strategy's result, `stored` are the rows of the database, `kills` is the number
    of times that the strategy's worker was killed.
    """
    seen = {int(link): list(numbers) for link, numbers in result["seen"].items()}
    links = [
        _make_link_figures(number, sent, seen.get(number, []))
        for number, sent in sorted(ledger.sent.items())
    ]
    sent = sum(each.sent for each in links)
    totals = {
        "sent": sent,
        "received": sum(each.received for each in links),
        "dropped": int(result["dropped"]),
        "lost in outages": sent - int(result["messages_in"]),
        "reconnected": int(result["reconnects"]),
        "workers replaced": int(result["incarnation"]) - 1,
        "ticks stored": len(stored),
    }
    return Report(links, _make_checks(ledger, result, stored, totals, seen, links, kills), totals)


def _make_link_figures(number: int, sent: int, numbers: Sequence[int]) -> LinkFigures:
    """A link's figures, from the number of messages sent and the numbers of the messages read."""
    received = len(set(numbers))
    last = max(numbers, default=0)
    return LinkFigures(number, sent, received, last - received, sent - last)


def _make_checks(
    ledger: Ledger,
    result: Mapping[str, Any],
    stored: Sequence[Stored],
    totals: Mapping[str, int],
    seen: Mapping[int, Sequence[int]],
    links: Sequence[LinkFigures],
    kills: int,
) -> list[Check]:
    accounted = totals["received"] + totals["dropped"] + totals["lost in outages"]
    twice = sum(len(numbers) - len(set(numbers)) for numbers in seen.values())
    disorder = sum(a >= b for numbers in seen.values() for a, b in pairwise(numbers))
    missing, behind = sum(each.missing for each in links), sum(each.lost for each in links)
    uncounted = max(0, missing - totals["dropped"], totals["dropped"] - missing - behind)
    ticks = int(result["writer"].get("stored", 0))
    return [
        Check("sent = received + dropped + lost in outages", totals["sent"], accounted),
        Check(
            "messages missing in between and not dropped, or dropped and not missing", uncounted, 0
        ),
        Check("received = read, as the connection counts", totals["received"], int(result["read"])),
        Check("messages received twice or out of order", twice + disorder, 0),
        Check(
            "links seen by the exchange = 1 + reconnected", len(links), 1 + totals["reconnected"]
        ),
        Check("workers replaced = workers killed", totals["workers replaced"], kills),
        Check("ticks received = ticks stored", int(result["ticks"]), len(stored)),
        Check("ticks stored = ticks the writer was told were stored", len(stored), ticks),
        Check(
            "ticks stored as the exchange made them",
            _count_true_rows(ledger.ticks, stored),
            len(stored),
        ),
    ]


def _count_true_rows(ticks: Mapping[int, Tick], stored: Sequence[Stored]) -> int:
    """The number of distinct rows that hold a tick as the exchange sent it."""
    return len({seq for seq, _, symbol, price in stored if ticks.get(seq) == (symbol, price)})

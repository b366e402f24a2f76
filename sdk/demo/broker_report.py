"""The report of the brokers' demo: whether written, read and lost messages add up for every feed.

Pure. The publisher knows the confirmed numbers. The strategy knows the numbers it read, and the
places in their order where the link was down. Where the broker keeps messages, none may be lost.
Elsewhere a number may be missing only because of an outage, or because the connection counted the
message as dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.demo.broker_feeds import Feed
from trunkline.demo.report import Check

__all__ = ["HEADING", "Figures", "Report", "make_report"]


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a feed, from the first tick to the last."""

    feed: Feed
    written: int
    """Numbers whose write was confirmed."""
    received: int
    """Distinct numbers that were read."""
    duplicates: int
    lost: int
    """Numbers that were confirmed and not read."""
    dropped: int
    """Messages that reached the connection and were counted as dropped."""
    unexplained: int
    """Lost numbers that neither an outage nor the count of dropped messages explains."""
    outages: int
    unknown: int
    """Numbers that were read and never written."""
    unconfirmed: int
    """Numbers that were read although their write was not confirmed."""
    delay: str

    def row(self) -> list[str]:
        """The row of the table, with the columns of HEADING."""
        counts = (
            self.written,
            self.received,
            self.duplicates,
            self.lost,
            self.dropped,
            self.outages,
        )
        return [self.feed.name, *map(str, counts), self.delay, self.feed.guarantee]


HEADING = (
    "feed", "written", "received", "duplicates", "lost", "of it dropped", "outages", "latency", "guarantee",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of all feeds, and the equations that must hold."""

    figures: list[Figures]
    checks: list[Check]

    @property
    def ok(self) -> bool:
        return all(check.holds for check in self.checks)


def make_report(
    feeds: Sequence[Feed],
    published: Mapping[str, Any],
    result: Mapping[str, Any],
    kills: int,
    restarted: Sequence[str],
) -> Report:
    """The report of all feeds.

    `published` and `result` are the results of the publisher and the strategy, by the feeds' names.
    `kills` is the number of killed workers; `restarted` are the restarted brokers.
    """
    figures = [_make_figures(feed, published[feed.name], result[feed.name]) for feed in feeds]
    checks = _of_all(
        {each.feed.name: _make_checks(each, result[each.feed.name]) for each in figures}
    )
    replaced = sum(int(result[feed.name]["incarnation"]) - 1 for feed in feeds)
    checks.append(Check("workers replaced = workers killed", replaced, kills))
    hit = [each for each in figures if each.feed.broker in restarted]
    noticed = sum(each.outages > 0 for each in hit)
    checks.append(Check("feeds of a restarted broker that noticed it", noticed, len(hit)))
    return Report(figures, checks)


def _make_figures(feed: Feed, published: Mapping[str, Any], result: Mapping[str, Any]) -> Figures:
    """The figures of a feed, from the confirmed numbers and the runs of read numbers."""
    tried = range(1, int(published["last"]) + 1)
    confirmed = set(tried) - set(published["failed"])
    runs = [(int(first), int(last), bool(outage)) for first, last, outage in result["runs"]]
    seen = {number for first, last, _ in runs for number in range(first, last + 1)}
    total = sum(last - first + 1 for first, last, _ in runs)
    lost = confirmed - seen
    dropped = int(result["dropped"])
    if result["down"]:
        runs = [*runs, (tried.stop, tried.stop, True)]
    excused = _in_outages(runs)
    return Figures(
        feed=feed,
        written=len(confirmed),
        received=len(seen),
        duplicates=total - len(seen),
        lost=len(lost),
        dropped=dropped,
        unexplained=max(0, len(lost - excused) - dropped),
        outages=int(result["outages"]),
        unknown=len(seen - set(tried)),
        unconfirmed=len((seen & set(tried)) - confirmed),
        delay=str(result["delay"]),
    )


def _in_outages(runs: Sequence[tuple[int, int, bool]]) -> set[int]:
    """The numbers whose messages would have come while the link was down."""
    excused: set[int] = set()
    highest = 0
    for first, last, outage in runs:
        if outage:
            excused.update(range(highest + 1, first))
        highest = max(highest, last)
    return excused


def _make_checks(figures: Figures, result: Mapping[str, Any]) -> list[Check]:
    """The equations of a feed."""
    read = figures.received + figures.duplicates
    came = int(result["messages_in"]) - int(result["dropped"]) - int(result["returned"])
    checks = [
        Check(
            "received + lost = written + arrived unconfirmed",
            figures.received - figures.unknown + figures.lost,
            figures.written + figures.unconfirmed,
        ),
        Check("received + duplicates = read, as the connections count", read, int(result["read"])),
        Check("the same = all that came, less dropped and given back", read, came),
        Check("numbers that nobody wrote", figures.unknown, 0),
    ]
    if figures.feed.acknowledged:
        return [*checks, Check("at least once: lost", figures.lost, 0)]
    return [
        *checks,
        Check("at most once: duplicates", figures.duplicates, 0),
        Check(
            "at most once: lost without an outage and not counted as dropped",
            figures.unexplained,
            0,
        ),
    ]


def _of_all(by_feed: Mapping[str, Sequence[Check]]) -> list[Check]:
    """A line for every equation: the sums where the equation holds for all feeds, else the feeds
    where it fails."""
    texts = dict.fromkeys(check.text for checks in by_feed.values() for check in checks)
    made = []
    for text in texts:
        same = {name: c for name, checks in by_feed.items() for c in checks if c.text == text}
        wrong = [
            Check(f"{name}: {text}", c.left, c.right) for name, c in same.items() if not c.holds
        ]
        left, right = (sum(c.left for c in same.values()), sum(c.right for c in same.values()))
        made += wrong or [Check(text, left, right)]
    return made

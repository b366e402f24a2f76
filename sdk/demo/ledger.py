"""The figures of the demo's exchange, for the comparison with the strategy's figures."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Ledger", "Tick"]

Tick = tuple[str, float]
"""A symbol and its price."""


@dataclass(slots=True)
class Ledger:
    """The figures of a run. Read them after the feed is closed."""

    sent: dict[int, int] = field(default_factory=dict)
    """For every link, the number of messages handed to its transport.

    Messages are numbered from 1.
    """
    ticks: dict[int, Tick] = field(default_factory=dict)
    """All ticks of the market by their numbers."""
    unheard: int = 0
    """Ticks that were made while no link was up."""
    heartbeats: int = 0
    pongs: int = 0
    pings: int = 0
    protocol_pongs: int = 0

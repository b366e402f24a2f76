"""The figures that the demo's exchange keeps, which the strategy's figures are compared with."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Ledger", "Tick"]

Tick = tuple[str, float]
"""A symbol and its price."""


@dataclass(slots=True)
class Ledger:
    """The figures of one run; read them when the feed is closed."""

    sent: dict[int, int] = field(default_factory=dict)
    """Link -> messages handed to its transport; they were numbered from 1."""
    ticks: dict[int, Tick] = field(default_factory=dict)
    """Number of a tick -> the tick, for all ticks of the market."""
    unheard: int = 0
    """Ticks that were made while no link was up."""
    heartbeats: int = 0
    pongs: int = 0
    pings: int = 0
    protocol_pongs: int = 0

"""How long to wait before the next attempt. Pure: the caller sleeps, the caller has the clock."""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["Backoff"]

MAX_S = 30.0
FACTOR = 1.6
JITTER = 0.25
STABLE_S = 10.0
"""A link that held for so long was a good one: the next outage starts from the first wait again."""
MOST_STEPS = 64
"""The waits have long reached their longest by then; a power of the factor must not overflow after days."""


class Backoff:
    """Waits that grow from `first_ms` to 30 s, each spread by a quarter so that many do not return at once.

    The first wait is as the user set it (`interval=`), without jitter above it: a longer
    `interval` than 30 s stays as it is. Waits grow with every attempt since the last stable link, for a
    peer that accepts and leaves again is no better than one that refuses; `retry` counts only failures.
    """

    def __init__(self, first_ms: int, *, retry: int = 0, rng: Callable[[], float] = random.random) -> None:
        self._first = first_ms / 1000
        self._retry = retry
        self._rng = rng
        self._step = 0
        self.failures = 0
        """Attempts that failed in a row."""

    def next_wait(self) -> float | None:
        """Seconds to wait before the next attempt, None when `retry` attempts in a row have failed."""
        if self._retry and self.failures >= self._retry:
            return None
        base = min(max(MAX_S, self._first), self._first * FACTOR**self._step)
        self._step = min(self._step + 1, MOST_STEPS)
        return base * (1 - JITTER * self._rng())

    def failed(self) -> None:
        """The attempt failed."""
        self.failures += 1

    def succeeded(self) -> None:
        """The attempt gave a link; whether it lasts is another question."""
        self.failures = 0

    def link_lasted(self, seconds: float) -> None:
        """Tell how long the link that was just lost had been up."""
        if seconds >= min(STABLE_S, max(1.0, self._first * 2)):
            self._step = 0

"""How long to wait before the next attempt to dial. Pure: the caller sleeps, the caller has the clock."""

from __future__ import annotations

import random
from collections.abc import Callable

from trunkline.address import Address

__all__ = ["DEFAULT_MAX_S", "STABLE_S", "Backoff", "backoff_of"]

DEFAULT_MAX_S = 30.0
"""The longest wait where option `maxInterval` is not given."""
FACTOR = 1.6
JITTER = 0.25
STABLE_S = 10.0
"""A link that held for so long was a good one: the next outage starts from the first wait again."""
MOST_STEPS = 64
"""The waits have long reached their longest by then; a power of the factor must not overflow after days."""


class Backoff:
    """Waits that grow from `interval` to `maxInterval`.

    * A wait is never shorter than `interval`. Each is made longer by up to a quarter, so that many clients of
      one server do not return at the same moment, but not beyond `maxInterval`.
    * Waits grow with every attempt since the last link that held `STABLE_S`: a peer that accepts and leaves
      again is no better than one that does not answer.
    * A peer that refuses us (a login, a certificate, HTTP 403) is asked again after the longest wait. Where
      `maxInterval` is not given, the first refusal in a row is followed by an ordinary wait, for many a
      refusal is gone at the next attempt.
    * `Retry-After` of the peer is kept: the wait is at least so long, even beyond `maxInterval`.
    * `retry` counts attempts that failed in a row, whatever the reason.
    """

    def __init__(
        self,
        first_ms: int,
        *,
        max_ms: int | None = None,
        retry: int = 0,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """`first_ms` is option `interval` and `max_ms` option `maxInterval` (None: not given), milliseconds;
        `retry` attempts in a row may fail, 0 is any number; `rng` gives numbers from 0 to 1."""
        self._first = first_ms / 1000
        self._longest = max(self._first, DEFAULT_MAX_S if max_ms is None else max_ms / 1000)
        self._patient_at_once = max_ms is not None
        self._retry = retry
        self._rng = rng
        self._step = 0
        self._refusals = 0
        self._not_before_s = 0.0
        self.failures = 0
        """Attempts that failed in a row."""

    def next_wait(self) -> float | None:
        """Seconds to wait before the next attempt, None when `retry` attempts in a row have failed."""
        if self._retry and self.failures >= self._retry:
            return None
        wait = self._longest if self._refused_for_long() else self._ordinary_wait()
        self._step = min(self._step + 1, MOST_STEPS)
        asked, self._not_before_s = self._not_before_s, 0.0
        return max(wait, asked)

    def failed(self, *, refused: bool = False, retry_after_s: float | None = None) -> None:
        """The attempt failed.

        `refused`: the peer, or something on this machine, refused it for a reason that seldom goes away by
        itself. `retry_after_s`: for how many seconds from now the peer wants no other attempt.
        """
        self.failures += 1
        self._refusals = self._refusals + 1 if refused else 0
        self._not_before_s = retry_after_s or 0.0

    def succeeded(self) -> None:
        """The attempt gave a link; whether it lasts is another question."""
        self.failures = self._refusals = 0

    def link_lasted(self, seconds: float) -> None:
        """Tell how long the link that was just lost had been up."""
        if seconds >= STABLE_S:
            self._step = 0

    def _refused_for_long(self) -> bool:
        return self._refusals > (0 if self._patient_at_once else 1)

    def _ordinary_wait(self) -> float:
        # Room is left for the spread, else all clients would return together after the longest wait.
        highest = max(self._first, self._longest / (1 + JITTER))
        base = min(highest, self._first * FACTOR**self._step)
        return min(self._longest, base * (1 + JITTER * self._rng()))


def backoff_of(address: Address) -> Backoff:
    """The waits that options `interval`, `maxInterval` and `retry` of an address ask for."""
    return Backoff(
        int(address.option("interval")),
        max_ms=address.options.get("maxInterval"),
        retry=int(address.option("retry")),
    )

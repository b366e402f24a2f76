"""The wait before the next attempt to dial. Pure: the caller passes the times and sleeps."""

from __future__ import annotations

import random
from collections.abc import Callable

from trunkline.address import Address

__all__ = ["DEFAULT_MAX_S", "STABLE_S", "Backoff", "backoff_of"]

DEFAULT_MAX_S = 30.0
"""The longest wait in seconds, without option `maxInterval`."""
FACTOR = 1.6
"""Each wait is this many times as long as the wait before."""
JITTER = 0.25
"""A wait is made longer by a random share, up to this one."""
STABLE_S = 10.0
"""A link that lasted this many seconds was stable: the next outage begins with the first wait."""
MOST_STEPS = 64
"""The exponent of `FACTOR` grows no further. The waits have reached their longest long before,
and the power must not overflow after days of attempts."""


class Backoff:
    """Waits that grow from `interval` to `maxInterval`.

    * A wait is never shorter than `interval`. A random share of up to a quarter is added, so that
      many clients of one server do not return at the same moment. No wait is longer than
      `maxInterval`.
    * Waits grow with every attempt since the last link that lasted `STABLE_S`. A peer that
      accepts a link and closes it at once counts like a peer that does not answer.
    * After a refusal (a login, a certificate, HTTP 403) the longest wait follows. Without a given
      `maxInterval` the first refusal in a row is followed by an ordinary wait, because many
      refusals are gone at the next attempt.
    * `Retry-After` of the peer is obeyed: the wait is at least so long, even beyond `maxInterval`.
    * `retry` counts attempts that failed in a row, for any reason.
    """

    def __init__(
        self,
        first_ms: int,
        *,
        max_ms: int | None = None,
        retry: int = 0,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """`first_ms`: option `interval`. `max_ms`: option `maxInterval` (None: not given). Both
        are milliseconds. `retry`: attempts in a row that may fail; 0 for any number. `rng`
        returns random numbers from 0 to 1."""
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
        """Seconds until the next attempt. None when `retry` attempts in a row have failed."""
        if self._retry and self.failures >= self._retry:
            return None
        wait = self._longest if self._refused_for_long() else self._ordinary_wait()
        self._step = min(self._step + 1, MOST_STEPS)
        asked, self._not_before_s = self._not_before_s, 0.0
        return max(wait, asked)

    def failed(self, *, refused: bool = False, retry_after_s: float | None = None) -> None:
        """Note that the attempt failed.

        `refused`: the reason seldom goes away by itself, at the peer or on this machine.
        `retry_after_s`: seconds from now for which the peer wants no other attempt.
        """
        self.failures += 1
        self._refusals = self._refusals + 1 if refused else 0
        self._not_before_s = retry_after_s or 0.0

    def succeeded(self) -> None:
        """Note that the attempt opened a link."""
        # `_step` stays: only a link that lasted ends the growth of the waits (`link_lasted`).
        self.failures = self._refusals = 0

    def link_lasted(self, seconds: float) -> None:
        """Note for how many seconds the link that was just lost had been up."""
        if seconds >= STABLE_S:
            self._step = 0

    def _refused_for_long(self) -> bool:
        return self._refusals > (0 if self._patient_at_once else 1)

    def _ordinary_wait(self) -> float:
        # Room is left for the random share. Otherwise all clients would return together after the
        # longest wait.
        highest = max(self._first, self._longest / (1 + JITTER))
        base = min(highest, self._first * FACTOR**self._step)
        return min(self._longest, base * (1 + JITTER * self._rng()))


def backoff_of(address: Address) -> Backoff:
    """The waits by options `interval`, `maxInterval` and `retry` of an address."""
    return Backoff(
        int(address.option("interval")),
        max_ms=address.options.get("maxInterval"),
        retry=int(address.option("retry")),
    )

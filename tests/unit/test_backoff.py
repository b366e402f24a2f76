"""Waits between attempts: they grow, they are spread, a stable link starts anew, they never overflow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.backoff import Backoff


def waits(backoff: Backoff, count: int) -> list[float]:
    found = [backoff.next_wait() for _ in range(count)]
    assert None not in found
    return [wait for wait in found if wait is not None]


@given(st.integers(1, 86_400_000), st.floats(0, 1))
def test_waits_grow_to_half_a_minute_and_jitter_only_shortens_them(first_ms: int, luck: float) -> None:
    plain = waits(Backoff(first_ms, rng=lambda: 0.0), 40)
    spread = waits(Backoff(first_ms, rng=lambda: luck), 40)
    assert plain == sorted(plain)
    assert plain[0] == first_ms / 1000
    assert plain[-1] == max(30.0, first_ms / 1000)
    assert all(0.75 * most <= wait <= most for wait, most in zip(spread, plain, strict=True))


def test_days_of_failures_do_not_overflow() -> None:
    backoff = Backoff(1000, rng=lambda: 0.0)
    for _ in range(5000):
        assert backoff.next_wait() is not None
        backoff.failed()
    assert backoff.next_wait() == 30.0


def test_retry_counts_failures_in_a_row() -> None:
    backoff = Backoff(10, retry=2)
    for _ in range(3):  # links that come and go are no failures
        assert backoff.next_wait() is not None
        backoff.succeeded()
        backoff.link_lasted(0.1)
    for _ in range(2):
        assert backoff.next_wait() is not None
        backoff.failed()
    assert backoff.next_wait() is None


def test_without_retry_it_never_gives_up() -> None:
    backoff = Backoff(10)
    for _ in range(100):
        assert backoff.next_wait() is not None
        backoff.failed()


@pytest.mark.parametrize(("lasted", "first_again"), [(0.5, False), (10.0, True)])
def test_only_a_stable_link_starts_the_waits_anew(lasted: float, first_again: bool) -> None:
    backoff = Backoff(1000, rng=lambda: 0.0)
    waits(backoff, 3)
    backoff.succeeded()
    backoff.link_lasted(lasted)
    assert (backoff.next_wait() == 1.0) is first_again

"""Waits between attempts: they grow, they are spread, refusals and `Retry-After` are heeded, a stable link
starts anew, nothing overflows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.net.backoff import Backoff


def waits(backoff: Backoff, count: int) -> list[float]:
    found = [backoff.next_wait() for _ in range(count)]
    assert None not in found
    return [wait for wait in found if wait is not None]


@given(st.integers(1, 86_400_000), st.none() | st.integers(1, 86_400_000), st.floats(0, 1))
def test_waits_grow_to_the_longest_and_are_never_shorter_than_asked(
    first_ms: int, max_ms: int | None, luck: float
) -> None:
    longest = max(30.0 if max_ms is None else max_ms / 1000, first_ms / 1000)
    plain = waits(Backoff(first_ms, max_ms=max_ms, rng=lambda: 0.0), 50)
    spread = waits(Backoff(first_ms, max_ms=max_ms, rng=lambda: luck), 50)
    assert plain == sorted(plain)
    assert plain[0] == first_ms / 1000
    assert plain[-1] == max(longest / 1.25, first_ms / 1000)
    for least, wait in zip(plain, spread, strict=True):
        assert least <= wait <= min(longest, least * 1.25)


def test_the_figures_of_the_reference_page() -> None:
    assert waits(Backoff(1000, rng=lambda: 0.0), 4) == pytest.approx([1.0, 1.6, 2.56, 4.096])


def test_days_of_failures_do_not_overflow() -> None:
    backoff = Backoff(1000, rng=lambda: 1.0)
    for _ in range(5000):
        assert backoff.next_wait() is not None
        backoff.failed()
    assert backoff.next_wait() == 30.0


def test_a_refusal_is_asked_again_after_the_longest_wait() -> None:
    backoff = Backoff(100, max_ms=5000, rng=lambda: 0.0)
    backoff.next_wait()
    for _ in range(3):
        backoff.failed(refused=True)
        assert backoff.next_wait() == 5.0
    backoff.failed()  # an ordinary failure goes on with ordinary waits
    wait = backoff.next_wait()
    assert wait is not None
    assert 0.1 < wait < 5.0


def test_without_max_interval_the_first_refusal_is_asked_again_soon() -> None:
    backoff = Backoff(100, rng=lambda: 0.0)
    backoff.next_wait()
    backoff.failed(refused=True)
    assert backoff.next_wait() == pytest.approx(0.16)
    for _ in range(3):
        backoff.failed(refused=True)
        assert backoff.next_wait() == 30.0
    backoff.succeeded()
    backoff.link_lasted(60)
    assert backoff.next_wait() == pytest.approx(0.1)
    backoff.failed(refused=True)
    assert backoff.next_wait() == pytest.approx(0.16)


def test_retry_counts_refusals_too() -> None:
    backoff = Backoff(10, retry=2)
    backoff.failed(refused=True)
    assert backoff.next_wait() is not None
    backoff.failed()
    assert backoff.next_wait() is None


@pytest.mark.parametrize("refused", [False, True])
def test_a_wait_that_the_peer_asked_for_is_kept_once(refused: bool) -> None:
    backoff = Backoff(100, max_ms=2000, rng=lambda: 0.0)
    backoff.failed(refused=refused, retry_after_s=6.0)
    assert backoff.next_wait() == 6.0
    backoff.failed(refused=refused, retry_after_s=0.001)  # ours is longer
    wait = backoff.next_wait()
    assert wait is not None
    assert 0.1 <= wait <= 2.0


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


@pytest.mark.parametrize(
    ("lasted", "first_again"), [(0.5, False), (2.3, False), (9.9, False), (10.0, True)]
)
def test_only_a_stable_link_starts_the_waits_anew(lasted: float, first_again: bool) -> None:
    backoff = Backoff(1000, rng=lambda: 0.0)
    waits(backoff, 3)
    backoff.succeeded()
    backoff.link_lasted(lasted)
    assert (backoff.next_wait() == 1.0) is first_again

"""What a peer says before its link counts as open."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.driver import Delivery
from trunkline.actors.stream.early import Arrival, EarlyArrivals


def data_of(arrivals: list[Arrival]) -> list[str | bytes]:
    found: list[str | bytes] = []
    for arrival in arrivals:
        found += arrival.plain
        found += [delivery.data for delivery in arrival.enveloped]
    return found


def test_batches_are_taken_once_in_order() -> None:
    early = EarlyArrivals(10, 1000, drops=True)
    early.add(Arrival(("a", b"b")))
    early.add(Arrival((), [Delivery("c")]))
    assert early.last() == "c"
    assert data_of(early.take()) == ["a", b"b", "c"]
    assert early.take() == []
    assert early.last() == ""


def test_a_driver_that_can_wait_is_told_when_it_is_full_and_loses_nothing() -> None:
    early = EarlyArrivals(2, 1000, drops=False)
    early.add(Arrival(("a",)))
    assert not early.is_full
    early.add(Arrival(("b", "c")))
    assert early.is_full
    assert data_of(early.take()) == ["a", "b", "c"]
    assert early.dropped == 0


def test_a_single_message_is_never_too_much() -> None:
    early = EarlyArrivals(10, 5, drops=True)
    early.add(Arrival(("longer than five",)))
    assert early.dropped == 0
    early.add(Arrival(("x",)))
    assert data_of(early.take()) == ["x"]
    assert early.dropped == 1


TEXTS = st.lists(st.text(max_size=6), min_size=1, max_size=6)


@given(
    st.lists(st.tuples(st.booleans(), TEXTS), max_size=12), st.integers(1, 8), st.integers(1, 20)
)
def test_the_newest_stay_within_the_limits_and_each_other_is_counted(
    batches: list[tuple[bool, list[str]]], limit: int, limit_bytes: int
) -> None:
    early = EarlyArrivals(limit, limit_bytes, drops=True)
    model: deque[str] = deque()
    dropped = 0
    for enveloped, texts in batches:
        early.add(Arrival((), list(map(Delivery, texts))) if enveloped else Arrival(texts))
        model.extend(texts)
        while len(model) > limit or (sum(map(len, model)) > limit_bytes and len(model) > 1):
            model.popleft()
            dropped += 1
    assert early.dropped == dropped
    assert early.is_full == (len(model) >= limit or sum(map(len, model)) > limit_bytes)
    assert data_of(early.take()) == list(model)


def test_a_batch_that_is_far_too_long_costs_no_more_for_each_message() -> None:
    """20,000 messages too many held the worker up for the better part of a minute."""
    early = EarlyArrivals(2000, 1 << 30, drops=True)
    early.add(Arrival([str(number) for number in range(300_000)]))
    assert early.dropped == 298_000
    assert data_of(early.take())[0] == "298000"


def test_neighbours_of_one_kind_are_one_batch() -> None:
    early = EarlyArrivals(10, 1000, drops=True)
    early.add(Arrival(("a",)))
    early.add(Arrival(("b",), [Delivery("c")]))
    early.add(Arrival((), [Delivery("d")]))
    assert early.take() == [Arrival(["a", "b"]), Arrival((), [Delivery("c"), Delivery("d")])]

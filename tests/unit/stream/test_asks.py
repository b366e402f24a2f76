"""Holders wait in the order of their asks, once each."""

from __future__ import annotations

from trunkline.actors.stream.asks import Asked, Asks

ASKED = Asked(1, 0, 0, True, False)


def test_a_holder_waits_once_in_the_place_of_its_first_ask() -> None:
    asks = Asks()
    for holder in (b"a", b"b", b"a"):
        asks.park(holder)
    assert list(asks.parked) == [b"a", b"b"]


def test_a_holder_that_waits_no_longer_has_no_ask_of_any_kind() -> None:
    asks = Asks()
    asks.park(b"a")
    asks.deferred[b"a"] = ASKED
    asks.drop(b"a")
    asks.drop(b"a")
    assert (list(asks.parked), asks.deferred) == ([], {})


def test_asks_that_were_put_off_are_taken_once_in_their_order() -> None:
    asks = Asks()
    asks.deferred[b"b"] = asks.deferred[b"a"] = ASKED
    assert list(asks.take_deferred()) == [b"b", b"a"]
    assert asks.take_deferred() == {}

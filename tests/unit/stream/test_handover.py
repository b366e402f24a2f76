"""What holders had of former workers corrects the figures once, whatever they are called meanwhile."""

from __future__ import annotations

from trunkline.actors.stream.handover import Handover


def test_the_difference_to_the_guess_of_the_former_workers_counts() -> None:
    handover = Handover({b"a": 10, b"b": 4})
    handover.settle(b"a", 7)
    assert handover.settled == -3
    handover.settle(b"b", 6)
    assert handover.settled == -1
    assert handover.given == {b"a": 7, b"b": 6}


def test_a_number_that_is_told_again_counts_once() -> None:
    handover = Handover({b"a": 10})
    handover.settle(b"a", 7)
    handover.settle(b"a", 7)
    assert handover.settled == -3


def test_a_holder_of_which_nothing_was_left_corrects_nothing() -> None:
    handover = Handover({})
    handover.settle(b"a", 7)
    assert (handover.settled, handover.given) == (0, {b"a": 7})


def test_a_holder_keeps_its_number_under_another_name() -> None:
    handover = Handover({b"old": 10})
    handover.rename(b"old", b"new")
    handover.settle(b"new", 12)
    assert (handover.settled, handover.given) == (2, {b"new": 12})


def test_a_holder_may_speak_under_its_new_name_before_that_is_told() -> None:
    handover = Handover({b"old": 10})
    handover.settle(b"new", 12)
    handover.rename(b"old", b"new")
    assert (handover.settled, handover.given) == (2, {b"new": 12})


def test_a_holder_that_has_left_is_forgotten() -> None:
    handover = Handover({b"a": 10})
    handover.forget(b"a")
    handover.forget(b"a")
    assert handover.given == {}

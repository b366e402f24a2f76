"""A read that asks is answered once: what nobody waits for any more is no idle holder's to keep. Each order
of events here had left a message in the pocket of a holder that was not reading."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.unit.stream.test_buffer import Reader, World


class Two(World):
    """Two readers that ask, the first with the worker's first word still on its way to it."""

    def __init__(self) -> None:
        super().__init__()
        self.start()
        first, second = self.readers
        self.hear(first)
        self.hear(second)
        first.deliver_recall()
        self.tell(*first.control_up.popleft())
        while second.down:
            second.deliver()

    def hear(self, reader: Reader) -> None:
        """The worker takes in all that this reader has said."""
        while reader.up:
            self.tell(*reader.up.popleft())

    def only_the_second_gets_it(self) -> None:
        """The first does not read, and what it has said is heard; the next message is for the second."""
        first, second = self.readers
        assert first.doing is None
        second.read("wait")
        self.settle()
        assert (first.got, second.got) == ([], [1])
        assert not first.pocket.items


@pytest.fixture
def two() -> Two:
    return Two()


def test_a_void_push_does_not_make_a_reader_ask_twice(two: Two) -> None:
    first = two.readers[0]
    first.read("newest")
    two.hear(first)  # which is answered: there is nothing
    first.deliver()  # START
    first.deliver()  # what was sent before the recall
    first.deliver()
    assert (first.doing, first.results) == (None, first.results[:1])
    two.messages_arrive(1)
    two.only_the_second_gets_it()


def test_a_repeated_ask_that_waits_for_a_recall_is_over_with_its_read(two: Two) -> None:
    first, second = two.readers
    two.settle()
    first.read("wait")
    two.hear(first)
    two.messages_arrive(1)
    first.again()  # a slice of its waiting has passed, and the message is on its way
    two.start()
    two.hear(two.readers[2])  # a third one: what is on its way is recalled
    two.hear(first)  # not served before the recall is answered
    first.deliver()
    assert (first.doing, first.got) == (None, [1])
    two.settle()
    two.messages_arrive(1)
    second.read("wait")
    two.settle()
    assert (first.got, second.got) == ([1], [2])


def test_a_wait_that_ended_before_the_answer_to_a_recall_is_over(two: Two) -> None:
    first = two.readers[0]
    two.one_closes(1)
    first.read("wait")
    two.settle()
    assert first.pocket.stream  # the only one: it is streamed to
    two.start()
    two.hear(two.readers[1])
    first.deliver_recall()  # it waits, it says
    first.cancel()
    two.hear(first)  # by the stream, which is faster here than the answer to the recall
    two.settle()
    assert first.doing is None
    two.messages_arrive(1)
    two.only_the_second_gets_it()


class Walk(Two):
    """Any order of the steps that asks and recalls are made of, in much greater number than the model with
    all that can happen has time for."""

    limit = 50

    def go(self, seed: int, steps: int) -> None:
        rng = random.Random(seed)
        self.given_back = (
            True  # a message recalled from one may come to another that has read later ones
        )
        ways: tuple[Callable[[int], object], ...] = (
            lambda n: self.requests_move(n, 1), lambda n: self.stream_moves(n, 1), self.recall_moves,
            self.answer_to_recall_moves, self.a_wait_goes_on, self.a_wait_ends,
            lambda n: self.someone_reads(n, rng.choice(["wait", "now", "newest"])),
            lambda n: self.someone_reads(n, "wait"), lambda n: rng.random() < 0.5 and self.messages_arrive(1),
            lambda n: rng.random() < 0.1 and self.link_changes(),
            lambda n: rng.random() < 0.2 and len(self.readers) < 3 and self.another_attaches(),
            lambda n: rng.random() < 0.1 and len(self.readers) > 2 and self.one_closes(n),
            lambda n: rng.random() < 0.05 and self.one_joins_another_broker(n),
        )  # fmt: skip
        for _ in range(steps):
            rng.choice(ways)(rng.randrange(len(self.readers)))
            self.sums_are_right()
        self.teardown()


@pytest.mark.parametrize("seed", range(8))
def test_no_order_of_asks_leaves_a_message_with_who_does_not_read(seed: int) -> None:
    for number in range(300):
        walk = Walk()
        try:
            walk.go(seed * 1_000_000 + number, steps=12 + number % 40)
        except AssertionError as error:
            raise AssertionError(
                f"Walk().go({seed * 1_000_000 + number}, {12 + number % 40})"
            ) from error


def test_who_waits_for_envelopes_gets_them_where_the_answer_to_a_recall_is_faster(two: Two) -> None:
    first = two.readers[0]
    two.one_closes(1)
    first.read("wait")
    two.settle()
    first.cancel()
    two.settle()
    assert first.pocket.stream
    first.pocket.want_envelopes()  # by an epoch of its own, which has the number of the worker's next one
    first.read("wait")
    two.start()
    while two.readers[1].up:
        two.tell(*two.readers[1].up.popleft())
    first.deliver_recall()
    two.tell(*first.control_up.popleft())
    two.messages_arrive(1)
    two.settle()
    assert first.got == [1]  # `done` looks whether it was stamped

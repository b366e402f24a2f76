"""The channel that reads, with a channel that keeps what it was told. No broker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.exceptions import (
    ChannelClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from tests.support.recorder import Recorder
from trunkline.actors.driver import Delivery, FatalError
from trunkline.actors.drivers.amqp.errors import explain_opening_error
from trunkline.actors.drivers.amqp.header import Properties
from trunkline.actors.drivers.amqp.memory import Memory
from trunkline.actors.drivers.amqp.plan import STREAM_OFFSET, make_plan
from trunkline.actors.drivers.amqp.reader import Reader
from trunkline.actors.drivers.amqp.settled import SettledTags
from trunkline.address import parse_address
from trunkline.errors import DialError

# tags


def test_tags_in_order_are_settled_one_by_one() -> None:
    tags = SettledTags()
    assert tags.follows(1)
    assert list(tags.add(1)) == [1]
    assert tags.is_settled(1)
    assert not tags.follows(1)
    assert tags.follows(2)


def test_a_tag_out_of_order_waits_for_those_before_it() -> None:
    tags = SettledTags()
    assert list(tags.add(3)) == []
    assert list(tags.add(2)) == []
    assert not tags.is_settled(3)
    assert list(tags.add(1)) == [1, 2, 3]
    assert tags.is_settled(3)


@given(st.permutations(range(1, 30)))
def test_each_tag_is_told_once_and_in_order(order: list[int]) -> None:
    tags = SettledTags()
    told = [tag for each in order for tag in tags.add(each)]
    assert told == list(range(1, 30))


# the reader


class Sink(Recorder):
    """Keeps the deliveries."""

    def __init__(self) -> None:
        super().__init__()
        self.deliveries: list[Delivery] = []

    def deliver(self, batch: Sequence[Delivery]) -> None:
        self.deliveries += batch


class Channel:
    """Keeps what it was told; what is asked is answered at once."""

    def __init__(self) -> None:
        self.is_open = True
        self.told: list[tuple[Any, ...]] = []

    def basic_ack(self, tag: int, multiple: bool = False) -> None:
        self.told.append(("ack", tag, multiple))

    def basic_nack(self, tag: int, requeue: bool) -> None:
        self.told.append(("nack", tag, requeue))

    def basic_reject(self, tag: int, requeue: bool) -> None:
        self.told.append(("reject", tag, requeue))

    def add_on_close_callback(self, callback: Callable[..., None]) -> None: ...


class Bench:
    def __init__(self, query: str = "queue=q") -> None:
        self.sink, self.channel, self.cuts = Sink(), Channel(), list[str]()
        self.memory = Memory()
        self.reader = Reader(
            self.channel,
            make_plan(parse_address(f"amqp://h?{query}", {})),
            self.memory,
            self.sink,
            largest=10,
            cut=self.cuts.append,
            hide=lambda text: text.replace("ann", "this user"),
        )
        self.count = 0

    def come(self, body: bytes = b"x", **headers: Any) -> None:
        self.count += 1
        method = SimpleNamespace(
            delivery_tag=self.count, routing_key="k", exchange="", redelivered=False
        )
        properties = Properties()
        properties.headers, properties.unread, properties.raw = headers or None, (), b""
        self.reader._take(self.channel, method, properties, body)


def test_messages_are_handed_over_together_unless_paused() -> None:
    bench = Bench()
    bench.come(b"a")
    bench.come(b"b")
    assert bench.sink.deliveries == []
    bench.reader.hand_over()
    assert [each.data for each in bench.sink.deliveries] == [b"a", b"b"]
    bench.reader.pause()
    bench.come(b"c")
    bench.reader.hand_over()
    assert len(bench.sink.deliveries) == 2
    bench.reader.resume()
    assert [each.data for each in bench.sink.deliveries] == [b"a", b"b", b"c"]


def test_messages_that_follow_each_other_are_acknowledged_together() -> None:
    bench = Bench()
    bench.reader.settle([1, 2, 3, 5])
    assert bench.channel.told == [("ack", 5, False), ("ack", 3, True)]
    bench.channel.told.clear()
    bench.reader.settle([4, 5, 2])
    assert bench.channel.told == [("ack", 4, True)]
    bench.channel.is_open = False
    bench.reader.settle([6])
    assert len(bench.channel.told) == 1


@pytest.mark.parametrize(("verdict", "requeue"), [("nak", True), ("reject", False)])
def test_a_refused_message_goes_back_or_to_the_dead_letters(verdict: str, requeue: bool) -> None:
    bench = Bench()
    bench.reader.refuse(1, verdict, 0)
    bench.reader.refuse(1, verdict, 0)
    assert bench.channel.told == [("nack", 1, requeue)]


def test_a_message_over_max_size_is_rejected_and_counted() -> None:
    bench = Bench()
    bench.come(b"x" * 11)
    bench.reader.hand_over()
    assert bench.channel.told == [("reject", 1, False)]
    assert (bench.sink.deliveries, bench.sink.drops) == ([], 1)
    assert "max_size is 10 bytes" in bench.sink.warnings[0]


def test_a_stream_is_read_on_behind_what_readers_have() -> None:
    bench = Bench("queue=q&x-stream-offset=first")
    for offset in (7, 8, 9):
        bench.come(**{STREAM_OFFSET: offset})
    bench.reader.hand_over()
    assert [each.identity for each in bench.sink.deliveries] == [
        (STREAM_OFFSET, n) for n in (7, 8, 9)
    ]
    bench.reader.settle([2])
    assert bench.memory.stream_next is None
    bench.reader.settle([1])
    assert bench.memory.stream_next == 9
    bench.come(**{STREAM_OFFSET: 8})
    bench.reader.hand_over()
    assert [each.redelivered for each in bench.sink.deliveries] == [False, False, False, True]
    assert bench.reader.lag() is None


def test_the_broker_ends_the_subscription() -> None:
    bench = Bench()
    bench.reader._note_cancelled(None)
    bench.reader._note_exchange_gone()
    assert bench.memory.deleted == {"queue", "exchange"}
    bench.reader._note_closed(None, ChannelClosedByBroker(403, "no right for ann"))
    bench.reader._note_closed(
        None, ChannelClosedByBroker(406, "delivery acknowledgement timed out")
    )
    bench.reader._note_closed(None, ConnectionError("the link was lost, which is told elsewhere"))
    assert len(bench.cuts) == 4
    assert bench.cuts[2] == "the broker ended the subscription: no right for this user"
    assert bench.cuts[3].endswith("longer than the broker's consumer_timeout")


# errors


@pytest.mark.parametrize(
    ("error", "fatal", "text"),
    [
        (ChannelClosedByBroker(404, "no queue"), False, "h: refused the subscription: no queue"),
        (ChannelClosedByBroker(406, "other"), True, "h: refused the subscription: other"),
        (ChannelClosedByBroker(403, "no right"), True, "h:: no right; give the user that right"),
        (ChannelClosedByBroker(405, "locked"), False, "has the queue for itself: locked"),
        (ChannelClosedByBroker(403, "in exclusive use"), False, "has the queue for itself"),
        (ProbableAuthenticationError("(403) 'no'"), True, "refused the login (ACCESS_REFUSED)"),
        (ProbableAccessDeniedError("(530) 'vhost x not found'"), True, "refused the virtual host"),
        (ProbableAccessDeniedError("(530) 'connection limit'"), False, "refused the virtual host"),
    ],
)
def test_why_a_link_could_not_be_had(error: Any, fatal: bool, text: str) -> None:
    found = explain_opening_error(error, None, "h:", lambda words: words)
    assert isinstance(found, FatalError if fatal else DialError)
    assert isinstance(found, FatalError) is fatal
    assert text in str(found)


def test_what_the_socket_knows_is_better_than_what_pika_does() -> None:
    from pika.exceptions import StreamLostError

    why = DialError("speaks TLS")
    assert explain_opening_error(StreamLostError("lost"), why, "h", str) is why
    assert "lost" in str(explain_opening_error(StreamLostError("lost"), None, "h", str))

"""Taking messages from a consumer that plays a script, and the upkeep beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from confluent_kafka import KafkaError

from tests.unit.drivers.kafka.owner import KeepingOwner, at_once
from trunkline.actors.drivers.kafka.damage import Damage
from trunkline.actors.drivers.kafka.fetching import Fetcher
from trunkline.actors.drivers.kafka.finder import Finder
from trunkline.actors.drivers.kafka.link_state import LinkState
from trunkline.actors.drivers.kafka.loop_side import LoopSide
from trunkline.actors.drivers.kafka.offsets import Position, Positions
from trunkline.actors.drivers.kafka.places import Places
from trunkline.actors.drivers.kafka.plan import plan_of
from trunkline.actors.drivers.kafka.silence import Silence
from trunkline.address import parse_address


class Message:
    """As librdkafka's: a message, or an error in its place."""

    def __init__(
        self, offset: int, value: bytes = b"x", code: int | None = None, partition: int = 0
    ) -> None:
        self._offset, self._value, self._partition = offset, value, partition
        self._error = None if code is None else KafkaError(code)

    def error(self) -> KafkaError | None:
        return self._error

    def topic(self) -> str:
        return "prices"

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes:
        return self._value

    def key(self) -> None: ...

    def headers(self) -> None: ...

    def timestamp(self) -> tuple[int, int]:
        return 0, 0


class Consumer:
    """Gives out the messages of its script and keeps what it was asked."""

    def __init__(self, *script: Message) -> None:
        self.script = deque(script)
        self.calls: list[str] = []

    def poll(self, seconds: float) -> Message | None:
        return self.script.popleft() if self.script else None

    def consume(self, most: int, seconds: float) -> list[Message]:
        return [self.script.popleft() for _ in range(min(most, len(self.script)))]

    def assignment(self) -> list[Any]:
        return []

    def pause(self, partitions: list[Any]) -> None:
        self.calls.append("pause")

    def resume(self, partitions: list[Any]) -> None:
        self.calls.append("resume")


class Bench(NamedTuple):
    fetcher: Fetcher
    consumer: Consumer
    owner: KeepingOwner
    loop_side: LoopSide
    link: LinkState
    positions: Positions


@pytest.fixture
def bench() -> Iterator[Bench]:
    with at_once() as (loop_side, owner):
        plan = plan_of(parse_address("kafka://host:9092/prices", {"max_size": 1000}))
        consumer, positions = Consumer(), Positions()
        positions.put(Position("prices", 0, 0))
        link = LinkState(plan, loop_side, knows_positions=True)
        link.finish_opening()
        tell = (loop_side.warn, loop_side.pass_over)
        finder = Finder(
            consumer, plan, lambda *_: None, lambda _: None, known={"prices": 1}, makes_topics=False
        )
        fetcher = Fetcher(
            consumer,
            plan,
            positions,
            link,
            loop_side,
            places=Places(consumer, plan, finder, positions, *tell),
            damage=Damage(consumer, plan.peer, positions, *tell),
            silence=Silence(plan, finder, positions),
            group=None,
        )
        yield Bench(fetcher, consumer, owner, loop_side, link, positions)


def _offsets(owner: KeepingOwner) -> list[int | None]:
    return [each.offset for each in owner.deliveries]


def test_no_more_than_asked_is_fetched(bench: Bench) -> None:
    bench.consumer.script.extend(Message(offset) for offset in range(5))
    assert bench.fetcher.fetch(3) == 3
    assert bench.fetcher.fetch(3) == 2
    assert _offsets(bench.owner) == [0, 1, 2, 3, 4]
    assert bench.fetcher.fetch(3) == 0


def test_a_message_that_comes_while_librdkafka_is_served_is_not_lost(bench: Bench) -> None:
    bench.consumer.script.extend(Message(offset) for offset in range(3))
    bench.fetcher.serve(0)
    bench.fetcher.serve(0)
    assert bench.owner.deliveries == []
    assert bench.fetcher.fetch(10) == 2
    assert bench.fetcher.fetch(10) == 1
    assert _offsets(bench.owner) == [0, 1, 2]


def test_early_messages_of_a_partition_can_be_forgotten(bench: Bench) -> None:
    bench.consumer.script.append(Message(0))
    bench.fetcher.serve(0)
    bench.fetcher.forget_early("prices", 1)
    bench.fetcher.forget_early("prices", 0)
    assert bench.fetcher.fetch(10) == 0
    bench.consumer.script.append(Message(0))
    bench.fetcher.serve(0)
    bench.fetcher.forget_all_early()
    assert bench.fetcher.fetch(10) == 0


def test_the_end_of_a_partition_keeps_its_place_behind_messages(bench: Bench) -> None:
    bench.consumer.script.extend((Message(0), Message(4, code=KafkaError._PARTITION_EOF)))
    bench.fetcher.serve(0)
    bench.fetcher.serve(0)
    assert bench.fetcher.fetch(10) == 1
    position = bench.positions.get("prices", 0)
    assert position is not None
    assert (position.next, _offsets(bench.owner)) == (4, [0])


@pytest.mark.parametrize("how", ["lost", "left"])
def test_nothing_is_given_without_a_link_or_an_owner(bench: Bench, how: str) -> None:
    bench.consumer.script.append(Message(0))
    if how == "lost":
        bench.link.is_open = False
    else:
        bench.loop_side.owner = None
    assert bench.fetcher.fetch(10) == 0
    position = bench.positions.get("prices", 0)
    assert position is not None
    assert position.next == 0, "it comes again"


def test_a_message_over_max_size_is_counted_and_named(bench: Bench) -> None:
    bench.consumer.script.extend((Message(0, b"x" * 1001), Message(1)))
    assert bench.fetcher.fetch(10) == 1
    assert (_offsets(bench.owner), bench.owner.drops) == ([1], 1)
    assert "1001 bytes in 'prices'" in bench.owner.warnings[0]


def test_holding_pauses_once_and_releasing_resumes_once(bench: Bench) -> None:
    bench.fetcher.release()
    bench.fetcher.hold()
    bench.fetcher.hold()
    assert bench.fetcher.is_held
    bench.fetcher.release()
    bench.fetcher.release()
    assert bench.consumer.calls == ["pause", "resume"]


@pytest.mark.parametrize(
    ("code", "lost", "warned"),
    [
        (KafkaError._AUTO_OFFSET_RESET, False, False),
        (KafkaError._BAD_MSG, False, True),
        (KafkaError.FENCED_INSTANCE_ID, True, False),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, False, False),
        (KafkaError._MAX_POLL_EXCEEDED, False, True),
        (KafkaError._UNKNOWN_TOPIC, True, False),
        (KafkaError._FAIL, False, True),
    ],
)
def test_each_kind_of_error_has_its_own_outcome(
    bench: Bench, code: int, lost: bool, warned: bool
) -> None:
    bench.consumer.script.append(Message(0, code=code))
    bench.fetcher.serve(0)
    assert bench.fetcher.fetch(10) == 0
    assert (not bench.link.is_open, bool(bench.owner.warnings)) == (lost, warned)

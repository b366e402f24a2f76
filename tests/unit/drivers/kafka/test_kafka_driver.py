"""The Kafka driver against a real server: reading, groups, writes, loss and taking over, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

import pytest

from tests.servers.kafka import Kafka, KafkaMock
from tests.support.certs import Certs
from tests.support.kafka import BareClient, KafkaProxy, make_topic
from tests.support.loops import Run, on_both_loops
from tests.support.recorder import Recorder
from tests.support.sockets import SocketServer
from tests.support.waiting import until
from trunkline.actors.driver import Delivery, FatalError, Overflow
from trunkline.actors.drivers.kafka import driver as kafka_driver
from trunkline.actors.drivers.kafka.driver import KafkaDriver
from trunkline.actors.drivers.kafka.offsets import Position, settle
from trunkline.actors.drivers.kafka.plan import plan_of
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import DialError, RefusedError, Unconfirmed

AnyKafka = Kafka | KafkaMock


class Sink(Recorder):
    """Keeps the deliveries; `eager` settles each at once, as a quick reader does."""

    def __init__(self, eager: bool = False) -> None:
        super().__init__()
        self.deliveries: list[Delivery] = []
        self.driver: KafkaDriver | None = None
        self.eager = eager

    def deliver(self, batch: Sequence[Delivery]) -> None:
        self.deliveries += batch
        self._news.set()
        if self.eager and self.driver is not None:
            self.driver.settle([each.token for each in batch])

    @property
    def data(self) -> list[Any]:
        return [each.data for each in self.deliveries]

    async def wait_data(self, count: int, seconds: float = 10.0) -> list[Any]:
        await self.until(lambda: len(self.deliveries) >= count, seconds)
        return self.data

    def settle(self, *deliveries: Delivery) -> None:
        assert self.driver is not None
        self.driver.settle([each.token for each in deliveries or self.deliveries])


async def dial(
    address: str, *, sink: Sink | None = None, parsed: Any = None, **options: object
) -> tuple[Sink, KafkaDriver]:
    sink = sink or Sink(eager=True)
    driver = KafkaDriver(parsed or parse_address(address, options), sink)
    sink.driver = driver
    _dialled.append(driver)
    await driver.open(Deadline(20))
    return sink, driver


_dialled: list[KafkaDriver] = []


async def ending(body: Coroutine[Any, Any, None]) -> None:
    """Run it, and close what it dialled, its parked readers included."""
    try:
        await body
    finally:
        while _dialled:
            await _dialled.pop().close()
        while kafka_driver._left_behind:
            _, (_, reader) = kafka_driver._left_behind.popitem()
            await reader.close(5)


async def refused(
    address: str, seconds: float = 10.0, **options: object
) -> tuple[DialError, float]:
    """How opening fails, and after how long."""
    driver = KafkaDriver(parse_address(address, options), Sink())
    begun = time.monotonic()
    try:
        with pytest.raises(DialError) as caught:
            await driver.open(Deadline(seconds))
        return caught.value, time.monotonic() - begun
    finally:
        await driver.close()


@pytest.fixture
def client(kafka: AnyKafka) -> Iterator[BareClient]:
    client = BareClient(kafka)
    yield client
    client.close()


@pytest.fixture
def proxy(kafka: AnyKafka) -> Iterator[KafkaProxy]:
    with KafkaProxy(kafka) as proxy:
        yield proxy


# reading


@on_both_loops
def test_what_is_written_after_open_is_read_with_its_envelope(
    kafka: AnyKafka, run: Run, client: BareClient
) -> None:
    topic = make_topic(kafka)
    client.write(topic, "before")

    async def body() -> None:
        sink, driver = await dial(f"kafka://{kafka.address}/{topic}?partition=0")
        client.write(topic, "plain")
        headers = [("a", b"1"), ("b", b"x"), ("b", b"\xff"), ("none", None)]
        client.write(topic, b"\xff\x00", key="k", headers=headers, timestamp=1_700_000_000_123)
        assert await sink.wait_data(2) == [b"plain", b"\xff\x00"]
        first, second = sink.deliveries
        assert (first.topic, first.partition, first.offset, first.key) == (topic, 0, 1, None)
        assert first.headers is None
        assert abs((first.timestamp or 0) - time.time()) < 60
        assert (second.key, second.timestamp) == ("k", 1_700_000_000.123)
        assert second.headers == {"a": "1", "b": ["x", b"\xff"], "none": None}
        assert second.identity == (topic, 0, 2)
        assert not second.redelivered
        await driver.close()
        await driver.close()
        assert sink.losses == []
        with pytest.raises(OSError, match="closed"):
            await driver.send("late", Deadline(5))

    run(ending(body()))


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        ("earliest", ["0", "1", "2", "3"]),
        ("latest", []),
        ("2", ["2", "3"]),
        ("2023-11-14T22:13:22Z", ["2", "3"]),
    ],
)
def test_where_reading_begins(
    apache_kafka: Kafka, offset: str, expected: list[str], client: BareClient
) -> None:
    topic = make_topic(apache_kafka)
    for number in range(4):
        client.write(topic, str(number), timestamp=(1_700_000_000 + number) * 1000)

    async def body() -> None:
        for group in ("", f"&group={apache_kafka.unique('g')}"):
            sink, driver = await dial(
                f"kafka://{apache_kafka.address}/{topic}?offset={offset}{group}"
            )
            client.write(topic, "after")
            await sink.until(lambda sink=sink: b"after" in sink.data)
            seen = [each for each in sink.data if each != b"after"]
            assert seen == [text.encode() for text in expected]
            await driver.close()

    asyncio.run(ending(body()))


def test_several_topics_and_all_their_partitions(apache_kafka: Kafka, client: BareClient) -> None:
    topics = [make_topic(apache_kafka, 3), make_topic(apache_kafka, 2)]

    async def body() -> None:
        sink, driver = await dial(f"kafka://{apache_kafka.address}?topic={','.join(topics)}")
        for topic, count in zip(topics, (3, 2), strict=True):
            for number in range(count):
                client.write(topic, f"{topic} {number}", partition=number)
        await sink.wait_data(5)
        places = {(each.topic, each.partition, each.data.decode()) for each in sink.deliveries}
        assert places == {
            (topic, number, f"{topic} {number}")
            for topic, count in zip(topics, (3, 2), strict=True)
            for number in range(count)
        }
        await driver.close()

    asyncio.run(ending(body()))


def test_partitions_that_are_added_are_read_from_their_beginning(
    apache_kafka: Kafka, client: BareClient
) -> None:
    from confluent_kafka.admin import AdminClient, NewPartitions

    topic = make_topic(apache_kafka)

    async def body() -> None:
        sink, driver = await dial(f"kafka://{apache_kafka.address}/{topic}", pingInterval=1000)
        admin = AdminClient({"bootstrap.servers": apache_kafka.address})
        admin.create_partitions([NewPartitions(topic, 2)])[topic].result(10)
        fresh = BareClient(apache_kafka)
        fresh.partitions(topic)
        fresh.write(topic, "new", partition=1)
        assert await sink.wait_data(1) == [b"new"]
        fresh.close()
        await driver.close()

    asyncio.run(ending(body()))


def test_no_more_than_the_buffer_is_given_out(kafka: AnyKafka, client: BareClient) -> None:
    topic = make_topic(kafka)

    async def body() -> None:
        sink, driver = await dial(
            f"kafka://{kafka.address}/{topic}?partition=0", sink=Sink(), buffer=50
        )
        client.write(topic, *map(str, range(200)))
        await sink.wait_data(50)
        await asyncio.sleep(1.5)  # longer than a full buffer is only waited for
        assert len(sink.deliveries) == 50
        driver.pause()
        sink.settle(*sink.deliveries[:50])
        await asyncio.sleep(0.3)
        assert len(sink.deliveries) == 50
        driver.resume()
        await sink.wait_data(100)
        sink.settle(*sink.deliveries[50:100])
        await sink.wait_data(150)
        sink.settle(*sink.deliveries[100:150])
        await sink.wait_data(200)
        assert sink.data == [str(number).encode() for number in range(200)]
        await driver.close()

    asyncio.run(ending(body()))


def test_too_large_messages_are_passed_over_and_counted(
    kafka: AnyKafka, client: BareClient
) -> None:
    topic = make_topic(kafka)

    async def body() -> None:
        sink, driver = await dial(f"kafka://{kafka.address}/{topic}?partition=0", max_size=100)
        client.write(topic, "x" * 101, "y" * 100)
        assert await sink.wait_data(1) == [b"y" * 100]
        await sink.until(lambda: sink.drops == 1 and sink.warnings)
        assert "larger than max_size" in sink.warnings[0]
        await driver.close()

    asyncio.run(ending(body()))


def test_what_was_deleted_before_it_was_read_is_counted(
    apache_kafka: Kafka, client: BareClient, proxy: KafkaProxy
) -> None:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    topic = make_topic(apache_kafka)

    async def body() -> None:
        sink, driver = await dial(f"kafka://{proxy.address}/{topic}")
        address = driver.address
        client.write(topic, "0")
        await sink.wait_data(1)
        proxy.refuse()
        proxy.cut()
        await sink.wait_lost()
        await driver.close()
        client.write(topic, *map(str, range(1, 10)))
        admin = AdminClient({"bootstrap.servers": apache_kafka.address})
        partition = TopicPartition(topic, 0, 6)
        admin.delete_records([partition])[partition].result(10)
        proxy.heal()
        sink, driver = await dial("", parsed=address)
        assert await sink.wait_data(4) == [b"6", b"7", b"8", b"9"]
        assert sink.drops == 5
        await driver.close()

    asyncio.run(ending(body()))


# groups


def test_a_group_commits_what_was_consumed_and_no_more(
    apache_kafka: Kafka, client: BareClient
) -> None:
    topic, group = make_topic(apache_kafka), apache_kafka.unique("g")

    async def body() -> None:
        address = f"kafka://{apache_kafka.address}/{topic}?group={group}"
        sink, driver = await dial(address, sink=Sink())
        assert client.committed(group, topic) == 0, "the group knows where it begins"
        client.write(topic, *map(str, range(10)))
        await sink.wait_data(10)
        by_offset = {each.offset: each for each in sink.deliveries}
        sink.settle(by_offset[5], by_offset[0], by_offset[2])
        await _until(lambda: client.committed(group, topic) == 1)
        sink.settle(by_offset[1])
        await _until(lambda: client.committed(group, topic) == 3)
        sink.settle(by_offset[4], by_offset[3])
        await driver.close()
        assert client.committed(group, topic) == 6
        sink, driver = await dial(address)
        assert await sink.wait_data(4) == [b"6", b"7", b"8", b"9"]
        await driver.close()

    asyncio.run(ending(body()))


@pytest.mark.parametrize(
    "protocol",
    ["", "&partition_assignment_strategy=cooperative-sticky", "&group_protocol=consumer"],
)
def test_members_share_and_what_one_had_comes_to_the_other(
    apache_kafka: Kafka, protocol: str, client: BareClient
) -> None:
    topic, group = make_topic(apache_kafka, 2), apache_kafka.unique("g")

    async def body() -> None:
        address = f"kafka://{apache_kafka.address}/{topic}?group={group}{protocol}"
        first, one = await dial(address, sink=Sink())
        for number in range(2):
            client.write(topic, f"a{number}", partition=number)
        await first.wait_data(2)
        first.settle()
        second, two = await dial(address)
        await _until(lambda: _shares(one) == _shares(two) == 1)
        for number in range(2):
            client.write(topic, f"b{number}", partition=number)
        await _until(lambda: len(first.data) == 3 and len(second.data) == 1)
        # What this one holds unread is not committed.
        await one.close()
        await _until(lambda: _shares(two) == 2)
        await second.wait_data(2)
        assert sorted(second.data) == [b"b0", b"b1"]
        # Before the end, which does not wait long for a broker that is busy.
        await _until(
            lambda: [client.committed(group, topic, number) for number in range(2)] == [2, 2], 60
        )
        await two.close()

    asyncio.run(ending(body()))


def test_a_rebalance_does_not_give_twice_what_stays(
    apache_kafka: Kafka, client: BareClient
) -> None:
    topic, group = make_topic(apache_kafka, 2), apache_kafka.unique("g")

    async def body() -> None:
        address = f"kafka://{apache_kafka.address}/{topic}?group={group}"
        first, one = await dial(address, sink=Sink())
        for number in range(2):
            client.write(topic, f"a{number}", partition=number)
        await first.wait_data(2)
        second, two = await dial(address, sink=Sink())
        await _until(lambda: _shares(one) == _shares(two) == 1)
        moved = next(iter(two._reader._positions)).partition  # type: ignore[union-attr]
        assert await second.wait_data(1) == [f"a{moved}".encode()], "unread there, so it comes here"
        client.write(topic, "more", partition=1 - moved)
        await first.wait_data(3)
        assert sorted(first.data) == [b"a0", b"a1", b"more"]
        first.settle()
        second.settle()
        await one.close()
        await two.close()
        assert client.committed(group, topic, 1 - moved) == 2
        assert client.committed(group, topic, moved) == 1

    asyncio.run(ending(body()))


def _shares(driver: KafkaDriver) -> int:
    assert driver._reader is not None
    return len(list(driver._reader._positions))


async def _until(happened: Any, seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not happened():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


# places that are not there any more


def _delete_records(server: Kafka, topic: str, before: int) -> None:
    """What retention does: the first offset that is left is `before`."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    partition = TopicPartition(topic, 0, before)
    admin = AdminClient({"bootstrap.servers": server.address})
    admin.delete_records([partition])[partition].result(10)


def _commit(server: Kafka, group: str, topic: str, offset: int) -> None:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": server.address, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    consumer.close()


def _remake(server: Kafka, topic: str, partitions: int) -> None:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": server.address})
    admin.delete_topics([topic])[topic].result(10)
    deadline = Deadline(20)
    while True:
        try:
            server.create(topic, partitions)
            return
        except KafkaException:  # it is being deleted
            assert not deadline.expired()
            time.sleep(0.05)


def test_a_group_whose_place_is_gone_goes_on_and_counts(
    apache_kafka: Kafka, client: BareClient
) -> None:
    async def body() -> None:
        # Where the error event comes is a matter of milliseconds: half of such groups used to stay silent.
        for _ in range(4):
            topic, group = make_topic(apache_kafka), apache_kafka.unique("g")
            client.write(topic, *map(str, range(10)))
            _commit(apache_kafka, group, topic, 3)
            _delete_records(apache_kafka, topic, 7)
            sink, driver = await dial(
                f"kafka://{apache_kafka.address}/{topic}?group={group}&offset=earliest"
            )
            assert await sink.wait_data(3) == [b"7", b"8", b"9"]
            assert sink.drops == 4
            await driver.close()
        # Beyond the end: with offset=earliest all there is, as librdkafka does; else the end, counted.
        for offset, expected, drops in (("earliest", [b"a", b"b", b"c"], 0), ("latest", [b"c"], 2)):
            topic, group = make_topic(apache_kafka), apache_kafka.unique("g")
            client.write(topic, "a", "b")
            _commit(apache_kafka, group, topic, 100)
            sink, driver = await dial(
                f"kafka://{apache_kafka.address}/{topic}?group={group}&offset={offset}"
            )
            await sink.until(lambda sink=sink: sink.warnings)
            client.write(topic, "c")
            assert await sink.wait_data(len(expected)) == expected
            assert sink.drops == drops
            await driver.close()

    asyncio.run(ending(body()))


@pytest.mark.parametrize("protocol", [None, "range", "cooperative-sticky"])
def test_a_slow_reader_counts_what_retention_deletes(
    apache_kafka: Kafka, client: BareClient, protocol: str | None
) -> None:
    topic = make_topic(apache_kafka)

    async def body() -> None:
        group = f"?group={apache_kafka.unique('g')}&partition_assignment_strategy={protocol}"
        name = group if protocol else ""
        sink, driver = await dial(
            f"kafka://{apache_kafka.address}/{topic}{name}", sink=Sink(), buffer=3
        )
        client.write(topic, *(f"{number:<200000}" for number in range(30)))
        await sink.wait_data(3)
        # The partitions are paused by then, and what was fetched ahead is given up.
        await _until(lambda: driver._reader.is_held and driver.lag() == 30)  # type: ignore[union-attr]
        _delete_records(apache_kafka, topic, 28)
        sink.settle(*sink.deliveries)
        await sink.wait_data(5)
        assert [int(each) for each in sink.data] == [0, 1, 2, 28, 29]
        assert sink.drops == 25
        sink.settle(*sink.deliveries[3:])
        await _until(lambda: driver.lag() == 0)
        await driver.close()

    asyncio.run(ending(body()))


def test_a_new_topic_of_a_pattern_is_read_from_its_beginning(
    apache_kafka: Kafka, client: BareClient
) -> None:
    async def body() -> None:
        name, group = apache_kafka.unique("ticks"), apache_kafka.unique("g")
        first, second = f"{name}.a", f"{name}.b"
        apache_kafka.create(first)
        client.write(first, "before")
        sink, driver = await dial(
            f"kafka://{apache_kafka.address}?topic=^{name}.*&group={group}", pingInterval=1000
        )
        apache_kafka.create(second)
        client.write(second, "b0", "b1", "b2")
        client.write(first, "a0")
        await sink.wait_data(4, 30)
        assert sorted(sink.data) == [b"a0", b"b0", b"b1", b"b2"]
        await driver.close()

    asyncio.run(ending(body()))


@pytest.mark.parametrize("group", [False, True])
def test_a_topic_made_anew_is_read_from_its_beginning(
    apache_kafka: Kafka, client: BareClient, group: bool
) -> None:
    topic = make_topic(apache_kafka)

    async def body() -> None:
        name = f"?group={apache_kafka.unique('g')}" if group else ""
        sink, driver = await dial(
            f"kafka://{apache_kafka.address}/{topic}{name}", pingInterval=1000
        )
        client.write(topic, *(f"old{number}" for number in range(5)))
        await sink.wait_data(5)
        await _until(lambda: driver.lag() == 0)
        _remake(apache_kafka, topic, 2)
        fresh = BareClient(apache_kafka)
        assert fresh.partitions(topic) == [0, 1]
        fresh.write(topic, *(f"new{number}" for number in range(8)))
        fresh.write(topic, "other", partition=1)
        await sink.wait_data(14, 30)
        assert sorted(sink.data[5:]) == sorted([*(f"new{n}".encode() for n in range(8)), b"other"])
        assert sink.drops == 0
        assert sink.losses == []
        fresh.close()
        await driver.close()

    asyncio.run(ending(body()))


@pytest.mark.parametrize("group", [False, True])
def test_a_deleted_topic_is_waited_for_and_not_made_again(
    apache_kafka: Kafka, client: BareClient, group: bool
) -> None:
    topic = make_topic(apache_kafka)

    async def body() -> None:
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": apache_kafka.address})
        name = f"?group={apache_kafka.unique('g')}" if group else ""
        options = f"{'&' if name else '?'}topic.metadata.propagation.max.ms=500"
        address = f"kafka://{apache_kafka.address}/{topic}{name}{options}"
        sink, driver = await dial(address, pingInterval=1000)
        parsed = driver.address
        client.write(topic, "old")
        await sink.wait_data(1)
        admin.delete_topics([topic])[topic].result(10)
        assert "was deleted" in str(await sink.wait_lost())
        await driver.close()
        error, _ = await _attempt(parsed)
        assert "was deleted; reading goes on when it is made again" in str(error)
        assert not isinstance(error, FatalError)
        assert topic not in admin.list_topics(timeout=10).topics
        apache_kafka.create(topic)
        fresh = BareClient(apache_kafka)
        fresh.partitions(topic)
        fresh.write(topic, "new")
        again, driver = await dial("", parsed=parsed)
        assert await again.wait_data(1, 30) == [b"new"]
        fresh.close()
        await driver.close()

    asyncio.run(ending(body()))


def test_a_member_that_another_one_has_fenced_ends(apache_kafka: Kafka) -> None:
    topic, group = make_topic(apache_kafka), apache_kafka.unique("g")

    async def body() -> None:
        address = f"kafka://{apache_kafka.address}/{topic}?group={group}&group.instance.id=one"
        first, one = await dial(address)
        second, two = await dial(address)
        lost = await asyncio.wait_for(first.wait_lost(), 30)
        assert isinstance(lost, FatalError)
        assert "another member with the same group.instance.id" in str(lost)
        await one.close()
        error, _ = await _attempt(one.address)  # it does not take the place back
        assert "another member" in str(error)
        assert second.losses == []
        await two.close()

    asyncio.run(ending(body()))


# writing


@on_both_loops
def test_a_write_returns_when_the_broker_has_it(
    kafka: AnyKafka, run: Run, client: BareClient
) -> None:
    topic = make_topic(kafka)

    async def body() -> None:
        headers = {"h": "v", "n": "2"}
        sink, driver = await dial(
            f"kafka://{kafka.address}/{topic}?partition=0&key=k", headers=headers
        )
        assert await driver.send("hé", Deadline(5)) == 3
        assert [message.value() for message in client.read(topic, [0])] == ["hé".encode()]
        assert await driver.send(b"\xff", Deadline(5)) == 1
        assert await driver.send("", Deadline(5)) == 0
        sizes = await asyncio.gather(
            *(driver.send(str(number), Deadline(10)) for number in range(500))
        )
        assert sizes == [len(str(number)) for number in range(500)]
        written = client.read(topic, [0])
        assert [message.value() for message in written[3:]] == [str(n).encode() for n in range(500)]
        assert {(message.key(), tuple(message.headers())) for message in written} == {
            (b"k", (("h", b"v"), ("n", b"2")))
        }
        await sink.wait_data(503)
        await driver.close()

    run(ending(body()))


def test_where_to_write_may_be_another_topic_and_the_only_one(
    kafka: AnyKafka, client: BareClient
) -> None:
    topic = make_topic(kafka)

    async def body() -> None:
        sink, driver = await dial(f"kafka://{kafka.address}?write_topic={topic}")
        assert await driver.send("x", Deadline(5)) == 1
        assert client.values(topic) == [b"x"]
        await driver.close()
        assert sink.deliveries == []

    asyncio.run(ending(body()))


def test_a_refused_message_leaves_the_link_as_it_is(apache_kafka: Kafka) -> None:
    topic = make_topic(apache_kafka, **{"max.message.bytes": "2000"})

    async def body() -> None:
        sink, driver = await dial(f"kafka://{apache_kafka.address}/{topic}")
        with pytest.raises(
            RefusedError, match=r"refused a message of 5000 bytes .* over its limit"
        ):
            await driver.send("x" * 5000, Deadline(5))
        with pytest.raises(RefusedError, match=r"over its limit"):
            await driver.send("x" * (17 << 20), Deadline(5))
        assert await driver.send("y", Deadline(5)) == 1
        assert await sink.wait_data(1) == [b"y"]
        await driver.close()
        _, driver = await dial(f"kafka://{apache_kafka.address}?write_topic={topic}&partition=7")
        with pytest.raises(RefusedError, match="no such partition"):
            await driver.send("x", Deadline(5))
        await driver.close()

    asyncio.run(ending(body()))


def test_what_is_on_the_wire_at_the_deadline_is_unconfirmed_and_the_rest_never_sent(
    kafka: AnyKafka, client: BareClient, proxy: KafkaProxy
) -> None:
    topic = make_topic(kafka)

    async def body() -> None:
        _, driver = await dial(f"kafka://{proxy.address}/{topic}?partition=0")
        assert await driver.send("first", Deadline(5)) == 5
        proxy.stall("up")
        begun = time.monotonic()
        with pytest.raises(Unconfirmed, match="may have arrived"):
            await driver.send("on the wire", Deadline(0.3))
        assert 0.3 <= time.monotonic() - begun < 0.6
        # Far more than the sockets between us and the proxy take.
        big = [b"%d" % number + b"x" * 900_000 for number in range(30)]
        results = await asyncio.gather(
            *(driver.send(each, Deadline(0.5)) for each in big), return_exceptions=True
        )
        assert all(result == 0 or isinstance(result, Unconfirmed) for result in results), results
        assert results.count(0) > 5
        last = asyncio.create_task(driver.send("in time", Deadline(20)))
        await asyncio.sleep(0.1)
        proxy.heal()
        assert await last == 7
        unsent = [each for each, result in zip(big, results, strict=True) if result == 0]
        values = {message.value() for message in client.read(topic, [0])}
        assert b"in time" in values
        assert not values & set(unsent)
        await driver.close()

    asyncio.run(ending(body()))


def test_a_write_with_time_left_survives_the_deadline_of_another(
    kafka: AnyKafka, client: BareClient, proxy: KafkaProxy
) -> None:
    topic = make_topic(kafka)

    async def body() -> None:
        address = f"kafka://{proxy.address}/{topic}?partition=0&max_in_flight=1"
        _, driver = await dial(address)
        assert await driver.send("first", Deadline(5)) == 5
        proxy.stall("up")
        blocked = asyncio.create_task(driver.send("blocks", Deadline(20)))
        await asyncio.sleep(0.05)
        long = [asyncio.create_task(driver.send(f"long {n}", Deadline(20))) for n in range(5)]
        assert await driver.send("short", Deadline(0.3)) == 0
        proxy.heal()
        assert [await task for task in (blocked, *long)] == [6] * 6
        values = [message.value() for message in client.read(topic, [0])]
        assert values[0] == b"first"
        # Writes that wait at the same time have no order among them; each has come, and once.
        assert sorted(values) == sorted([b"first", b"blocks", *(b"long %d" % n for n in range(5))])
        await driver.close()

    asyncio.run(ending(body()))


def test_writers_hear_of_a_lost_link_at_once(
    kafka: AnyKafka, client: BareClient, proxy: KafkaProxy
) -> None:
    topic = make_topic(kafka)

    async def body() -> None:
        sink, driver = await dial(f"kafka://{proxy.address}/{topic}?partition=0")
        assert await driver.send("first", Deadline(5)) == 5
        proxy.stall("up")
        writes = [asyncio.create_task(driver.send("late", Deadline(30))) for _ in range(3)]
        await asyncio.sleep(0.05)
        proxy.refuse()
        proxy.cut()
        for write in writes:
            with pytest.raises(OSError, match="may have arrived"):
                await asyncio.wait_for(write, 5)
        await sink.wait_lost()
        with pytest.raises(OSError, match=r"closed|refused"):
            await driver.send("while down", Deadline(5))
        proxy.heal()
        await driver.close()
        assert client.values(topic) == [b"first"]

    asyncio.run(ending(body()))


# the link


@pytest.mark.parametrize("group", [False, True])
def test_the_next_link_goes_on_after_what_was_consumed(
    kafka: AnyKafka, group: bool, client: BareClient, proxy: KafkaProxy
) -> None:
    topic = make_topic(kafka)

    async def body() -> None:
        name = f"&group={kafka.unique('g')}" if group else ""
        sink, driver = await dial(f"kafka://{proxy.address}/{topic}?partition=0{name}", sink=Sink())
        address = driver.address
        client.write(topic, "0", "1", "2")
        await sink.wait_data(3)
        sink.settle(sink.deliveries[0])
        proxy.refuse()
        proxy.cut()
        assert "closed" in str(await sink.wait_lost()) or "refused" in str(sink.losses[0])
        await driver.close()
        client.write(topic, "3")
        error, seconds = await _attempt(address)
        assert "refused the connection" in str(error)
        assert seconds < 5
        proxy.heal()
        again, driver = await dial("", parsed=address)
        assert await again.wait_data(3) == [b"1", b"2", b"3"]
        assert [each.redelivered for each in again.deliveries] == [True, True, False]
        client.write(topic, "4")
        assert (await again.wait_data(4))[-1] == b"4"
        await driver.close()
        assert again.losses == []

    asyncio.run(ending(body()))


async def _attempt(address: Any) -> tuple[DialError, float]:
    driver = KafkaDriver(address, Sink())
    begun = time.monotonic()
    with pytest.raises(DialError) as caught:
        await driver.open(Deadline(10))
    await driver.close()
    return caught.value, time.monotonic() - begun


@pytest.mark.parametrize("group", [False, True])
def test_a_silent_network_is_noticed_within_two_intervals(
    kafka: AnyKafka, group: bool, client: BareClient, proxy: KafkaProxy
) -> None:
    topic = make_topic(kafka)

    async def body() -> None:
        name = f"&group={kafka.unique('g')}" if group else ""
        address = f"kafka://{proxy.address}/{topic}?partition=0{name}"
        sink, driver = await dial(address, pingInterval=2500, reconnect=False)
        client.write(topic, "0")
        await sink.wait_data(1)
        proxy.blackhole()
        begun = time.monotonic()
        await sink.until(lambda: sink.losses, 10)
        assert time.monotonic() - begun < 6
        proxy.heal()
        proxy.reset()  # else librdkafka takes up to ten seconds to be gone
        await driver.close()

    asyncio.run(ending(body()))


def test_closing_is_quick_whatever_the_server_does(
    kafka: AnyKafka, client: BareClient, proxy: KafkaProxy
) -> None:
    topic = make_topic(kafka)

    async def body() -> None:
        address = f"kafka://{proxy.address}/{topic}?partition=0&group={kafka.unique('g')}"
        _, driver = await dial(address, pingInterval=1000)
        proxy.blackhole()
        write = asyncio.create_task(driver.send("x", Deadline(30)))
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        await driver.close()
        assert time.monotonic() - begun < 1.3
        with pytest.raises(OSError, match="may have arrived"):
            await write

    asyncio.run(ending(body()))


# what cannot be opened


def test_nobody_there(free_port: int) -> None:
    async def body() -> None:
        error, seconds = await refused(f"kafka://127.0.0.1:{free_port}/t")
        assert str(error) == f"127.0.0.1:{free_port} refused the connection; is the server running?"
        assert seconds < 3
        assert not isinstance(error, FatalError)
        error, _ = await refused("kafka://no-such-host.invalid/t")
        assert "no such host no-such-host.invalid" in str(error)

    asyncio.run(ending(body()))


def test_who_accepts_and_says_nothing() -> None:
    async def body() -> None:
        error, seconds = await refused(f"kafka://127.0.0.1:{server.port}/t", 1.0)
        assert "in the time allowed" in str(error)
        assert 0.9 < seconds < 3.5

    with SocketServer(lambda peer: peer.stopping.wait()) as server:
        asyncio.run(ending(body()))


def test_another_protocol_on_the_port() -> None:
    async def body() -> None:
        error, seconds = await refused(f"kafka://127.0.0.1:{server.port}/t", 5.0)
        assert "check the port" in str(error), error
        assert seconds < 5.5

    def speak(peer: Any) -> None:
        peer.read()
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with SocketServer(speak) as server:
        asyncio.run(ending(body()))


@pytest.mark.parametrize(
    ("address", "options", "text"),
    [
        (
            "kafka://h/t?nonsense.property=1",
            {},
            'No such configuration property: "nonsense.property"',
        ),
        ("kafka://h/t?buffer_byte=5000", {}, "did you mean 'buffer_bytes'?"),
        ("kafka://h/t?socket_timeout_ms=abc", {}, "Invalid value"),
        ("kafka://h/t?enable_idempotence=true&retries=0", {}, "retries"),
        ("kafka://h/t?enable_auto_commit=true", {}, "enable.auto.commit cannot be set"),
        ("kafka://h/t?message_timeout_ms=1", {}, "the time of a write is the caller's"),
        ("kafka://h/%5Et.*", {}, "needs a group"),
        ("kafka://u:p@h/t?security_protocol=plaintext", {}, "has no login"),
        ("kafka://h/t?security_protocol=plaintext", {"insecureSkipVerify": True}, "has no TLS"),
        ("kafka://h/t", {"servername": "x"}, "servername cannot be had"),
        ("kafka://h/t", {"cafile": "/nowhere.pem"}, "cafile=/nowhere.pem cannot be used"),
    ],
)
def test_what_cannot_be_had_is_told_before_connecting(
    address: str, options: Any, text: str
) -> None:
    async def body() -> None:
        error, seconds = await refused(address, **options)
        assert isinstance(error, FatalError), error
        assert text in str(error)
        assert seconds < 2

    asyncio.run(ending(body()))


def test_an_unknown_topic_where_none_are_made(start_kafka: Any) -> None:
    server = start_kafka(config="auto.create.topics.enable=false")
    known = make_topic(server)

    async def body() -> None:
        error, _ = await refused(f"kafka://{server.address}/nosuch", 20)
        assert isinstance(error, FatalError)
        assert "no topic 'nosuch' and makes none by itself" in str(error)
        error, _ = await refused(f"kafka://{server.address}/{known}?write_topic=nosuch", 20)
        assert "no topic 'nosuch'" in str(error)
        error, _ = await refused(f"kafka://{server.address}/{known}?partition=4", 20)
        assert "check partition=4" in str(error)

    asyncio.run(ending(body()))


def test_a_topic_is_made_where_the_server_does_that(kafka: AnyKafka) -> None:
    async def body() -> None:
        sink, driver = await dial(f"kafka://{kafka.address}/{kafka.unique('new')}")
        assert await driver.send("x", Deadline(5)) == 1
        assert await sink.wait_data(1) == [b"x"]
        await driver.close()

    asyncio.run(ending(body()))


# logins, rights, TLS


@pytest.mark.parametrize("password", ["p", "wrong"])
def test_a_closed_connection_is_freed_without_the_garbage_collector(
    apache_kafka: Kafka, password: str
) -> None:
    """librdkafka's threads and sockets go with the last reference: one that is forgotten keeps them all."""
    topic = make_topic(apache_kafka)
    address = f"kafka://u:{password}@{apache_kafka.at('sasl')}/{topic}"
    before = _native_threads()

    async def body() -> None:
        driver = KafkaDriver(parse_address(address, {}), Sink())
        with contextlib.suppress(DialError):
            await driver.open(Deadline(20))
            await driver.send("x", Deadline(5))
        assert _native_threads() - before
        await driver.close()

    gc.disable()
    try:
        asyncio.run(body())
        until(lambda: not _native_threads() - before, "the end of librdkafka's threads")
    finally:
        gc.enable()


def _native_threads() -> set[str]:
    """Every thread of this process, those of C libraries too."""
    return set(os.listdir("/proc/self/task"))


@pytest.mark.parametrize("mechanism", ["", "&sasl_mechanisms=SCRAM-SHA-256"])
@pytest.mark.parametrize("secure", [False, True])
def test_login(apache_kafka: Kafka, certs: Certs, mechanism: str, secure: bool) -> None:
    place = apache_kafka.at("sasl_tls" if secure else "sasl")
    options = {"cafile": str(certs.ca)} if secure else {}
    topic = make_topic(apache_kafka)

    async def body() -> None:
        sink, driver = await dial(f"kafka://u:p@{place}/{topic}?client_id=me{mechanism}", **options)
        assert await driver.send("x", Deadline(5)) == 1
        assert await sink.wait_data(1) == [b"x"]
        await driver.close()
        error, seconds = await refused(
            f"kafka://u:wrong-secret@{place}/{topic}?client_id=me{mechanism}", **options
        )
        assert isinstance(error, FatalError)
        assert "refused the login" in str(error)
        assert "wrong-secret" not in str(error)
        assert seconds < 5

    asyncio.run(ending(body()))


def test_no_login_where_one_is_wanted(apache_kafka: Kafka) -> None:
    async def body() -> None:
        error, seconds = await refused(f"kafka://{apache_kafka.at('sasl')}/t", 8)
        assert "login" in str(error) or "Broken pipe" in str(error), error
        assert seconds < 8
        error, _ = await refused(f"kafka://u:p@{apache_kafka.at('sasl')}/t?sasl_mechanisms=GSSAPI")
        assert isinstance(error, FatalError)

    asyncio.run(ending(body()))


def test_no_rights(apache_kafka: Kafka) -> None:
    topic = make_topic(apache_kafka)

    async def body() -> None:
        error, _ = await refused(f"kafka://limited:p@{apache_kafka.at('sasl')}/{topic}")
        assert isinstance(error, FatalError)
        assert f"no right to the topic '{topic}'" in str(error)

    asyncio.run(ending(body()))


def test_rights_to_the_topic_and_none_to_group_or_writing(
    apache_kafka: Kafka, client: BareClient
) -> None:
    from confluent_kafka.admin import (
        AclBinding,
        AclOperation,
        AclPermissionType,
        AdminClient,
        ResourcePatternType,
        ResourceType,
    )

    topic = make_topic(apache_kafka)
    admin = AdminClient({"bootstrap.servers": apache_kafka.address})
    binding = AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        "User:limited",
        "*",
        AclOperation.READ,
        AclPermissionType.ALLOW,
    )
    admin.create_acls([binding])[binding].result(10)

    async def body() -> None:
        address = f"kafka://limited:p@{apache_kafka.at('sasl')}/{topic}"
        sink, driver = await dial(address)
        client.write(topic, "x")
        assert await sink.wait_data(1) == [b"x"]
        with pytest.raises(RefusedError, match="no right to write"):
            await driver.send("y", Deadline(5))
        await driver.close()
        error, _ = await refused(f"{address}?group=g")
        assert isinstance(error, FatalError)
        assert "no right to the group 'g'" in str(error)

    asyncio.run(ending(body()))


def test_tls(apache_kafka: Kafka, certs: Certs, client: BareClient) -> None:
    place, topic = apache_kafka.at("tls"), make_topic(apache_kafka)

    async def body() -> None:
        own = {"certfile": str(certs.client.cert), "keyfile": str(certs.client.key)}
        for options in (
            {"cafile": str(certs.ca)},
            {"insecureSkipVerify": True},
            {"cafile": str(certs.ca), **own},
        ):
            sink, driver = await dial(f"kafka://{place}/{topic}", **options)
            client.write(topic, "x")
            assert await sink.wait_data(1) == [b"x"]
            await driver.close()
        error, _ = await refused(f"kafka://{place}/{topic}?security_protocol=ssl")
        assert isinstance(error, FatalError)
        assert "is not trusted" in str(error)
        error, _ = await refused(f"kafka://{apache_kafka.address}/{topic}", cafile=str(certs.ca))
        # which of the two it is, a race in librdkafka decides
        assert "did not answer with TLS" in str(error) or "closed the TLS connection" in str(
            error
        ), error
        assert "check the port and security_protocol" in str(error)
        error, _ = await refused(f"kafka://{place}/{topic}", 8)
        assert "security_protocol" in str(error) or "TLS" in str(error), error

    asyncio.run(ending(body()))


# without a server


def test_what_the_driver_says_of_itself() -> None:
    plain, group = parse_address("kafka://h/t"), parse_address("kafka://h/t?group=g")
    assert KafkaDriver.overflow_for(plain) is Overflow.BACK_PRESSURE
    assert not KafkaDriver.redelivers(plain)
    assert KafkaDriver.redelivers(group)
    assert KafkaDriver.confirms


def test_the_plan_of_an_address() -> None:
    plan = plan_of(parse_address("kafka://u:p@a:1,b/t?group=g&linger_ms=5", {"pingInterval": 5000}))
    assert plan.consumer["bootstrap.servers"] == "a:1,b:9092"
    assert (plan.consumer["sasl.username"], plan.consumer["security.protocol"]) == (
        "u",
        "SASL_PLAINTEXT",
    )
    assert plan.consumer["socket.timeout.ms"] == 2500
    assert plan.producer["linger.ms"] == "5"
    assert (plan.topics, plan.write_topic, plan.group) == (("t",), "t", "g")
    assert plan_of(parse_address("kafka://[::1]/t")).consumer["bootstrap.servers"] == "[::1]:9092"


def test_only_what_all_before_it_is_consumed_counts() -> None:
    position = Position("t", 0, 10)
    for offset in (10, 12, 15, 16):
        position.pending.append(offset)
    settle([(position, 12), (position, 15)])
    assert position.base == 10
    settle([(position, 10)])
    assert position.base == 16
    again = position.again()
    settle([(position, 16)])
    assert (position.base, again.base) == (17, 16), "what belongs to a former link changes nothing"

"""Offsets that were never anybody's message: transactions' marks and aborted messages, compacted topics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from tests.servers.kafka import Kafka
from tests.support.kafka import BareClient, make_topic
from tests.unit.drivers.kafka.test_kafka_driver import Sink, _until, dial, ending


@pytest.fixture
def client(apache_kafka: Kafka) -> Iterator[BareClient]:
    client = BareClient(apache_kafka)
    yield client
    client.close()


class Transactions:
    """A producer whose messages are committed or aborted together."""

    def __init__(self, server: Kafka) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": server.address,
                "transactional.id": server.unique("x"),
                "linger.ms": 1,
            }
        )
        self._producer.init_transactions(30)

    def begin(self, topic: str, *messages: str) -> None:
        self._producer.begin_transaction()
        for message in messages:
            self._producer.produce(topic, message, partition=0)
        assert self._producer.flush(20) == 0

    def commit(self) -> None:
        self._producer.commit_transaction(30)

    def abort(self) -> None:
        self._producer.abort_transaction(30)


@pytest.mark.parametrize("grouped", [False, True])
def test_transactions_lose_nothing_and_count_nothing(apache_kafka: Kafka, grouped: bool) -> None:
    topic = make_topic(apache_kafka)
    group = f"&group={apache_kafka.unique('g')}" if grouped else ""
    address = f"kafka://{apache_kafka.address}/{topic}?offset=earliest{group}"

    async def body() -> None:
        writer = await asyncio.to_thread(Transactions, apache_kafka)
        writer.begin(topic, "a", "b")
        writer.commit()
        writer.begin(topic, "no", "never")
        writer.abort()
        sink, driver = await dial(address)
        assert await sink.wait_data(2) == [b"a", b"b"]
        await _until(lambda: driver.lag() == 0)
        writer.begin(topic, "c")
        await _until(lambda: driver.lag() == 1)  # there, and not to be had yet
        writer.commit()
        assert (await sink.wait_data(3))[2:] == [b"c"]
        writer.begin(topic, "no")
        writer.abort()
        await _until(lambda: driver.lag() == 0)
        assert (sink.drops, sink.losses) == (0, [])
        await driver.close()
        if grouped:
            sink, driver = await dial(address)
            writer.begin(topic, "d")
            writer.commit()
            assert await sink.wait_data(1) == [b"d"]
            assert (sink.drops, sink.losses) == (0, [])
            await driver.close()

    asyncio.run(ending(body()))


def test_an_open_transaction_is_no_damage(apache_kafka: Kafka) -> None:
    topic = make_topic(apache_kafka)

    async def body() -> None:
        writer = await asyncio.to_thread(Transactions, apache_kafka)
        sink, driver = await dial(
            f"kafka://{apache_kafka.address}/{topic}?offset=earliest", pingInterval=1000
        )
        writer.begin(topic, "a")
        await asyncio.sleep(8)  # longer than messages may fail to come
        writer.commit()
        assert await sink.wait_data(1) == [b"a"]
        assert (sink.drops, sink.losses) == (0, [])
        await driver.close()

    asyncio.run(ending(body()))


def test_what_has_not_been_committed_is_read_by_who_asks_for_it(apache_kafka: Kafka) -> None:
    topic = make_topic(apache_kafka)

    async def body() -> None:
        writer = await asyncio.to_thread(Transactions, apache_kafka)
        address = f"kafka://{apache_kafka.address}/{topic}?offset=earliest"
        patient, one = await dial(address)
        hasty, two = await dial(f"{address}&isolation.level=read_uncommitted")
        writer.begin(topic, "a", "b")
        assert await hasty.wait_data(2) == [b"a", b"b"]
        assert patient.data == []
        writer.abort()
        writer.begin(topic, "c")
        writer.commit()
        assert await patient.wait_data(1) == [b"c"]
        assert (await hasty.wait_data(3))[2:] == [b"c"]
        assert (patient.drops, hasty.drops) == (0, 0)
        await one.close()
        await two.close()

    asyncio.run(ending(body()))


@pytest.mark.parametrize("grouped", [False, True])
def test_a_compacted_topic_counts_nothing(
    apache_kafka: Kafka, client: BareClient, grouped: bool
) -> None:
    config = {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.0",
        "segment.ms": "100",
        "min.compaction.lag.ms": "0",
        "max.compaction.lag.ms": "100",
    }
    topic = make_topic(apache_kafka, **config)
    group = f"&group={apache_kafka.unique('g')}" if grouped else ""

    async def body() -> None:
        slow, one = await dial(
            f"kafka://{apache_kafka.address}/{topic}?offset=earliest{group}", sink=Sink(), buffer=3
        )
        for number in range(30):
            client.write(topic, f"{number:<20000}", key=f"k{number % 3}")
            await asyncio.sleep(0.15 if number % 10 == 9 else 0)
        await slow.wait_data(3)
        await asyncio.sleep(0.2)
        client.write(topic, "end", key="end")
        deadline = asyncio.get_running_loop().time() + 60
        while len(await asyncio.to_thread(client.read, topic, [0])) > 25:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(1)
        left = [each.offset() for each in client.read(topic, [0])]
        slow.eager = True
        slow.settle(*slow.deliveries)
        await slow.until(lambda: slow.data[-1] == b"end", 30)
        offsets = [each.offset for each in slow.deliveries]
        assert offsets == sorted(set(offsets))
        assert set(left) <= set(offsets)
        assert (slow.drops, slow.losses) == (0, [])
        await _until(lambda: one.lag() == 0)
        await one.close()

    asyncio.run(ending(body()))

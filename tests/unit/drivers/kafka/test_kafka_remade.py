"""Topics that change under an open reader, in ways that meet: groups that share cooperatively, outages, fewer
partitions, a full buffer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers.kafka import Kafka
from tests.support.kafka import BareClient, KafkaProxy, make_topic
from tests.unit.drivers.kafka.test_kafka_driver import Sink, _remake, _until, dial, ending
from trunkline.actors.driver import Place
from trunkline.actors.drivers.kafka.driver import KafkaDriver
from trunkline.deadline import Deadline
from trunkline.errors import DialError

COOPERATIVE = "&partition_assignment_strategy=cooperative-sticky"


@pytest.fixture
def client(apache_kafka: Kafka) -> Iterator[BareClient]:
    client = BareClient(apache_kafka)
    yield client
    client.close()


def fresh_client(server: Kafka, topic: str) -> BareClient:
    """One that knows of the topic what it is now."""
    client = BareClient(server)
    client.partitions(topic)
    return client


async def _linked_until(
    driver: KafkaDriver, sink: Sink, count: int, seconds: float = 60.0
) -> KafkaDriver:
    """Dial again and again, as the worker does, until so many messages have come; the driver of the link."""
    parsed: Any = driver.address
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(TimeoutError):
                await sink.until(lambda: sink.losses or len(sink.data) >= count, 5)
            if not sink.losses:
                if len(sink.data) >= count:
                    return driver
                continue
            await driver.close()
            await asyncio.sleep(0.5)
            sink.losses.clear()
            driver = KafkaDriver(parsed, sink)
            driver.had_link = True
            sink.driver = driver
            try:
                await driver.open(Deadline(10))
            except DialError as error:
                sink.losses.append(error)


@pytest.mark.parametrize("how", ["", "group", "cooperative"])
def test_a_topic_made_anew_with_fewer_partitions(
    apache_kafka: Kafka, client: BareClient, how: str
) -> None:
    topic = make_topic(apache_kafka, 3)
    group = f"?group={apache_kafka.unique('g')}" if how else ""
    group += COOPERATIVE if how == "cooperative" else ""

    async def body() -> None:
        sink, driver = await dial(
            f"kafka://{apache_kafka.address}/{topic}{group}", pingInterval=1000
        )
        for number in range(3):
            client.write(topic, f"old {number}", partition=number)
        await sink.wait_data(3)
        await _until(lambda: driver.lag() == 0)
        _remake(apache_kafka, topic, 1)
        fresh = fresh_client(apache_kafka, topic)
        fresh.write(topic, *(f"new {number}" for number in range(5)))
        # The partitions that are gone end the link; the next one reads the topic from its beginning.
        driver = await _linked_until(driver, sink, 8)
        assert sink.data[3:] == [f"new {number}".encode() for number in range(5)]
        assert sink.drops == 0
        await driver.seek(Place.of(2, topic, None), Deadline(20))
        assert (await sink.wait_data(11))[8:] == [b"new 2", b"new 3", b"new 4"]
        await _until(lambda: len(list(driver._reader._positions)) == 1, 30)  # type: ignore[union-attr]
        await _until(lambda: driver.lag() == 0, 30)
        fresh.close()
        await driver.close()

    asyncio.run(ending(body()))


@pytest.mark.parametrize("how", ["", "group", "cooperative"])
def test_a_topic_made_anew_during_an_outage(
    apache_kafka: Kafka, client: BareClient, how: str
) -> None:
    topic = make_topic(apache_kafka)
    group = f"?group={apache_kafka.unique('g')}" if how else ""
    group += COOPERATIVE if how == "cooperative" else ""

    async def body() -> None:
        with KafkaProxy(apache_kafka) as proxy:
            sink, driver = await dial(f"kafka://{proxy.address}/{topic}{group}", pingInterval=1000)
            parsed: Any = driver.address
            client.write(topic, *(f"old {number}" for number in range(5)))
            await sink.wait_data(5)
            await _until(lambda: driver.lag() == 0)
            await asyncio.sleep(1)  # until that is committed
            proxy.refuse()
            proxy.cut()
            await sink.wait_lost()
            await driver.close()
            _remake(apache_kafka, topic, 1)
            fresh = fresh_client(apache_kafka, topic)
            fresh.write(topic, *(f"new {number}" for number in range(8)))
            proxy.heal()
            again, driver = await dial("", parsed=parsed)
            assert await again.wait_data(8, 40) == [f"new {number}".encode() for number in range(8)]
            assert again.drops == 0
            fresh.close()
            await driver.close()

    asyncio.run(ending(body()))


@pytest.mark.parametrize("cooperative", [False, True])
def test_a_member_seeks_while_its_group_shares_anew(
    apache_kafka: Kafka, client: BareClient, cooperative: bool
) -> None:
    topic, group = make_topic(apache_kafka, 4), apache_kafka.unique("g")
    for number in range(4):
        client.write(topic, *(f"{number} {count}" for count in range(50)), partition=number)

    async def body() -> None:
        address = f"kafka://{apache_kafka.address}/{topic}?group={group}&offset=earliest"
        address += COOPERATIVE if cooperative else ""
        first, one = await dial(address)
        await first.wait_data(200)
        opening = asyncio.create_task(dial(address))
        for _ in range(8):
            await one.seek(Place.of("earliest", None, None), Deadline(30))
            await asyncio.sleep(0.3)
        second, two = await opening
        await _until(lambda: len(list(one._reader._positions)) == 2, 30)  # type: ignore[union-attr]
        await _until(lambda: len(list(two._reader._positions)) == 2, 30)  # type: ignore[union-attr]
        for sink, driver in ((first, one), (second, two)):
            sink.deliveries.clear()
            await driver.seek(Place.of(40, None, None), Deadline(30))
            await sink.until(lambda sink=sink: len(sink.deliveries) >= 20, 20)
            for number in {each.partition for each in sink.deliveries}:
                offsets = [each.offset for each in sink.deliveries if each.partition == number]
                assert offsets[-10:] == list(range(40, 50))
        assert (first.drops, second.drops) == (0, 0)
        assert first.losses == second.losses == []
        await one.close()
        await two.close()

    asyncio.run(ending(body()))

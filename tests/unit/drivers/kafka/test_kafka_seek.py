"""`seek` of the Kafka driver against the real server: where it goes, what it discards, what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers.kafka import Kafka
from tests.support.kafka import BareClient, KafkaProxy, make_topic
from tests.unit.drivers.kafka.test_kafka_driver import Sink, dial, ending
from trunkline.actors.driver import Delivery, Place
from trunkline.actors.drivers.kafka.driver import KafkaDriver
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import RefusedError


@pytest.fixture
def client(apache_kafka: Kafka) -> Iterator[BareClient]:
    client = BareClient(apache_kafka)
    yield client
    client.close()


async def seek(
    driver: KafkaDriver, offset: Any, topic: str | None = None, partition: int | None = None
) -> Any:
    return await driver.seek(Place.of(offset, topic, partition), Deadline(20))


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]


@pytest.mark.parametrize("grouped", [False, True])
def test_reading_goes_on_at_any_place(
    apache_kafka: Kafka, client: BareClient, grouped: bool
) -> None:
    topic = make_topic(apache_kafka)
    for number in range(10):
        client.write(topic, str(number), timestamp=1_700_000_000_000 + 1000 * number)
    group = f"&group={apache_kafka.unique('g')}" if grouped else ""

    async def body() -> None:
        sink, driver = await dial(f"kafka://{apache_kafka.address}/{topic}?offset=earliest{group}")
        assert await sink.wait_data(10) == numbers(0, 10)
        for place, first in ((7, 7), ("earliest", 0), ("2023-11-14T22:13:23Z", 3), (9, 9), (0, 0)):
            sink.deliveries.clear()
            void = await seek(driver, place)
            assert await sink.wait_data(10 - first) == numbers(first, 10)
            assert not any(void(each.token) or each.redelivered for each in sink.deliveries)
            await sink.until(lambda: driver.lag() == 0)
        for length, place in enumerate(("latest", 11, "2033-11-14T22:13:23Z"), 10):
            sink.deliveries.clear()
            await seek(driver, place)
            client.write(topic, f"{length}")
            assert await sink.wait_data(1) == numbers(length, length + 1)
        assert sink.drops == 0
        assert sink.losses == []
        await driver.close()

    asyncio.run(ending(body()))


def test_a_full_buffer_that_waits_is_left_behind(apache_kafka: Kafka, client: BareClient) -> None:
    topic = make_topic(apache_kafka)
    client.write(topic, *(str(number) for number in range(5000)))

    async def body() -> None:
        address = f"kafka://{apache_kafka.address}/{topic}?offset=earliest"
        sink, driver = await dial(address, sink=Sink(), buffer=100)
        await sink.wait_data(100)
        driver.pause()
        await asyncio.sleep(1.5)  # until the partitions are paused
        void = await seek(driver, 4000)
        old = list(sink.deliveries)
        assert all(void(each.token) for each in old)
        sink.deliveries.clear()
        driver.settle([each.token for each in old])  # as the buffer does with what it discards
        driver.resume()
        assert (await sink.wait_data(100))[:3] == numbers(4000, 4003)
        assert not any(void(each.token) for each in sink.deliveries)
        await driver.close()

    asyncio.run(ending(body()))


def test_one_partition_moves_and_the_others_stay(apache_kafka: Kafka, client: BareClient) -> None:
    first, second = make_topic(apache_kafka, 2), make_topic(apache_kafka)
    for topic, number in ((first, 0), (first, 1), (second, 0)):
        client.write(topic, *(f"{topic} {number} {count}" for count in range(5)), partition=number)

    def of(found: list[Delivery], topic: str, number: int) -> list[int | None]:
        return [each.offset for each in found if (each.topic, each.partition) == (topic, number)]

    async def body() -> None:
        sink, driver = await dial(
            f"kafka://{apache_kafka.address}?topic={first},{second}&offset=earliest"
        )
        await sink.wait_data(15)
        old = list(sink.deliveries)
        sink.deliveries.clear()
        void = await seek(driver, 3, first, 1)
        await sink.wait_data(2)
        assert of(sink.deliveries, first, 1) == [3, 4]
        assert len(sink.deliveries) == 2
        assert {(each.topic, each.partition) for each in old if void(each.token)} == {(first, 1)}
        sink.deliveries.clear()
        await seek(driver, 4, first)
        await sink.wait_data(2)
        assert sorted((each.topic, each.partition) for each in sink.deliveries) == [
            (first, 0),
            (first, 1),
        ]
        sink.deliveries.clear()
        await seek(driver, "earliest", None, 0)
        await sink.wait_data(10)
        assert of(sink.deliveries, first, 0) == of(sink.deliveries, second, 0) == list(range(5))
        await driver.close()

    asyncio.run(ending(body()))


@pytest.mark.parametrize("cooperative", [False, True])
def test_a_group_is_told_at_once(
    apache_kafka: Kafka, client: BareClient, cooperative: bool
) -> None:
    topic, group = make_topic(apache_kafka), apache_kafka.unique("g")
    client.write(topic, *(str(number) for number in range(10)))
    more = "&partition_assignment_strategy=cooperative-sticky" if cooperative else ""

    async def body() -> None:
        address = f"kafka://{apache_kafka.address}/{topic}?offset=earliest&group={group}{more}"
        sink, driver = await dial(address)
        await sink.wait_data(10)
        sink.eager = False
        for place in (3, 8, 0):
            sink.deliveries.clear()
            await seek(driver, place)
            assert await asyncio.to_thread(client.committed, group, topic) == place
            assert await sink.wait_data(10 - place) == numbers(place, 10)
        await driver.close()

    asyncio.run(ending(body()))


def test_what_is_not_there_is_refused_and_nothing_moves(
    apache_kafka: Kafka, client: BareClient
) -> None:
    topic, empty = make_topic(apache_kafka, 2), make_topic(apache_kafka)
    client.write(topic, "a", "b", "c")

    async def body() -> None:
        sink, driver = await dial(
            f"kafka://{apache_kafka.address}?topic={topic},{empty}&offset=earliest"
        )
        await sink.wait_data(3)
        for arguments, text in (
            (
                (4, topic, 0),
                f"topic '{topic}', partition 0 has the offsets 0 to 2, and 3 is its next; it has no 4",
            ),
            ((1, empty), f"topic '{empty}', partition 0 is empty, and 0 is its next"),
            ((3,), "name one"),
            (
                (0, "other"),
                f"does not read the topic 'other'; it reads {', '.join(sorted((topic, empty)))}",
            ),
            ((0, topic, 2), f"reads no topic '{topic}' with partition 2; it reads 0, 1"),
            ((0, None, 7), "reads no partition 7; it reads 0, 1"),
        ):
            with pytest.raises(RefusedError) as caught:
                await seek(driver, *arguments)
            assert text in str(caught.value)
        client.write(topic, "d")
        assert await sink.wait_data(4) == [b"a", b"b", b"c", b"d"]
        await driver.close()
        with pytest.raises(OSError, match="closed"):
            await seek(driver, 0)
        sink, driver = await dial(f"kafka://{apache_kafka.address}?write_topic={topic}")
        with pytest.raises(RefusedError, match="only writes"):
            await seek(driver, 0)
        await driver.close()

    asyncio.run(ending(body()))


def test_after_an_outage_reading_goes_on_behind_the_place(
    apache_kafka: Kafka, client: BareClient
) -> None:
    topic = make_topic(apache_kafka)
    client.write(topic, *(str(number) for number in range(10)))

    async def body() -> None:
        with KafkaProxy(apache_kafka) as proxy:
            parsed = parse_address(f"kafka://{proxy.address}/{topic}?offset=earliest", {})
            sink, driver = await dial("", parsed=parsed)
            await sink.wait_data(10)
            sink.eager = False
            sink.deliveries.clear()
            await seek(driver, 5)
            await sink.wait_data(5)
            sink.settle(*sink.deliveries[:2])
            proxy.reset()
            await sink.until(lambda: sink.losses, 20)
            await driver.close()
            sink, driver = await dial("", parsed=parsed)
            assert await sink.wait_data(3) == numbers(7, 10)
            assert all(each.redelivered for each in sink.deliveries)
            await driver.close()

    asyncio.run(ending(body()))

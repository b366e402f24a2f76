"""Damaged messages in a Kafka log: passed over and counted, or the link ends in words."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.kafka import Kafka
from tests.support.kafka import BareClient, make_topic
from tests.unit.drivers.kafka.test_kafka_driver import Sink, dial, ending

COUNT = 9

DAMAGE = {
    # where in the batch, and what is written there
    "a value": (73, b"\xff"),
    "the checksum": (17, b"\x00\x00\x00\x01"),
    "an unknown compression": (21, b"\x00\x07"),
    "compressed, it says": (21, b"\x00\x01"),
    "too many records": (57, b"\x00\x00\x10\x00"),
    "fewer than no records": (57, b"\xff\xff\xff\xff"),
    "an unknown version": (16, b"\x09"),
    "another last offset": (23, b"\x00\x00\x00\x00"),
    "a record without an end": (61, b"\x7f"),
    "a record of negative length": (61, b"\x01"),
    "only zeros": (61, bytes(24)),
}
UNREADABLE = {
    "a negative length": (8, struct.pack(">i", -5)),
    "no length": (8, bytes(4)),
    "the largest length": (8, struct.pack(">i", 2**31 - 1)),
    "a huge length": (8, struct.pack(">i", 10**8)),
}


@pytest.fixture
def client(apache_kafka: Kafka) -> Iterator[BareClient]:
    client = BareClient(apache_kafka)
    yield client
    client.close()


def log_of(server: Kafka, topic: str) -> Path:
    return server.folder / "data" / f"{topic}-0" / "00000000000000000000.log"


def batches(log: Path) -> list[tuple[int, range]]:
    """Where each batch of the log begins, and the offsets that it has."""
    data = log.read_bytes()
    found, place = [], 0
    while place < len(data):
        first, length = struct.unpack_from(">qi", data, place)
        (last,) = struct.unpack_from(">i", data, place + 23)
        found.append((place, range(first, first + last + 1)))
        place += length + 12
    return found


def damage(server: Kafka, topic: str, at: int, written: bytes) -> range:
    """Write into the middle batch of the topic's log; the offsets that it has."""
    log = log_of(server, topic)
    found = batches(log)
    place, offsets = found[len(found) // 2]
    with log.open("r+b") as file:
        file.seek(place + at)
        file.write(written)
    return offsets


def filled(server: Kafka, client: BareClient) -> str:
    """A topic of three batches. On a busy machine librdkafka may send a message by itself: then another."""
    while True:
        topic = make_topic(server)
        for first in range(0, COUNT, 3):
            client.write(topic, *(f"{number} of {COUNT}" for number in range(first, first + 3)))
        if [len(offsets) for _, offsets in batches(log_of(server, topic))] == [3, 3, 3]:
            return topic


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_messages_are_passed_over_and_counted(
    apache_kafka: Kafka, client: BareClient, what: str
) -> None:
    async def body() -> None:
        for group in ("", f"&group={apache_kafka.unique('g')}"):
            topic = filled(apache_kafka, client)
            bad = damage(apache_kafka, topic, *DAMAGE[what])
            sink, driver = await dial(
                f"kafka://{apache_kafka.address}/{topic}?offset=earliest{group}"
            )
            whole = [
                f"{number} of {COUNT}".encode() for number in range(COUNT) if number not in bad
            ]
            assert await sink.wait_data(len(whole), 60) == whole
            client.write(topic, "after")
            assert await sink.wait_data(len(whole) + 1, 30) == [*whole, b"after"]
            assert (sink.drops, sink.losses) == (len(bad), [])
            assert any("damaged messages are passed over" in text for text in sink.warnings)
            await driver.close()

    asyncio.run(ending(body()))


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_log_that_the_broker_cannot_read_ends_the_link_in_words(
    apache_kafka: Kafka, client: BareClient, what: str
) -> None:
    async def body() -> None:
        topic = filled(apache_kafka, client)
        bad = damage(apache_kafka, topic, *UNREADABLE[what])
        sink, driver = await dial(
            f"kafka://{apache_kafka.address}/{topic}?offset=earliest", pingInterval=1000
        )
        await sink.until(lambda: sink.losses, 30)
        assert f"offset {bad[0]}" in str(sink.losses[0])
        assert "log is damaged there" in str(sink.losses[0])
        assert len(sink.data) == bad[0]
        await driver.close()

    asyncio.run(ending(body()))


def test_damage_that_a_group_meets_at_the_end_ends_the_link_in_words(
    apache_kafka: Kafka, client: BareClient
) -> None:
    """Other partitions go on meanwhile, and a full buffer is no silence."""

    async def body() -> None:
        topic, group = make_topic(apache_kafka, 2), apache_kafka.unique("g")
        sink, driver = await dial(
            f"kafka://{apache_kafka.address}/{topic}?offset=earliest&group={group}",
            sink=Sink(),
            pingInterval=1000,
            buffer=3,
        )
        client.write(topic, "0", "1", "2", partition=1)
        await sink.wait_data(3)
        for first in range(0, COUNT, 3):
            client.write(topic, *(f"{number} of {COUNT}" for number in range(first, first + 3)))
        bad = damage(apache_kafka, topic, 8, struct.pack(">i", 10**8))
        await asyncio.sleep(8)
        assert sink.losses == []
        sink.settle(*sink.deliveries)
        await sink.wait_data(6)
        number = 3
        while not sink.losses:
            sink.settle(*sink.deliveries[-3:])
            client.write(topic, str(number), partition=1)
            number += 1
            assert number < 300
            await asyncio.sleep(0.1)
        assert f"partition 0 from offset {bad[0]} on" in str(sink.losses[0])
        await driver.close()

    asyncio.run(ending(body()))


def test_damaged_headers_are_left_out(apache_kafka: Kafka, client: BareClient) -> None:
    """Without the checksum, which would find it, a name that is no UTF-8 comes through."""

    async def body() -> None:
        topic = make_topic(apache_kafka)
        client.write(topic, *"x" * 100)  # Python makes a loop fast, and then looks at less
        client.write(topic, "a", headers=[("desk", b"x")])
        client.write(topic, "b")
        log = apache_kafka.folder / "data" / f"{topic}-0" / "00000000000000000000.log"
        data = log.read_bytes()
        with log.open("r+b") as file:
            file.seek(data.index(b"desk"))
            file.write(b"\xff\xfe")
        address = f"kafka://{apache_kafka.address}/{topic}?offset=earliest&check.crcs=false"
        sink, driver = await dial(address)
        assert (await sink.wait_data(102))[-2:] == [b"a", b"b"]
        assert sink.deliveries[100].headers is None
        await driver.close()

    asyncio.run(ending(body()))

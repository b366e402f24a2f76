"""kafka: confluent-kafka bare, and through Dial."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import trunkline
from benchmarks import feeds
from benchmarks.broker_lines import from_threads, reading_lines, started, writing_lines
from benchmarks.measure import Line, p50_us
from benchmarks.reading import Reading, Tally, through_dial
from tests.servers.base import Unavailable
from tests.servers.kafka import Kafka, KafkaMock
from tests.servers.run import Run

__all__ = ["measure"]

HOST = "127.0.0.1"
_WAIT_S = 30.0
_BATCH = 500


@contextlib.contextmanager
def _consumer(servers: str, topic: str, group: str | None) -> Iterator[Any]:
    """A bare consumer.

    With a group, the offsets of taken messages are stored, and librdkafka commits every 5 s.
    """
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": group or "nobody",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": group is not None,
            "enable.auto.offset.store": False,
        }
    )
    try:
        if group is None:
            consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        else:
            consumer.subscribe([topic])
        yield consumer
    finally:
        consumer.close()


def _poll(servers: str, topic: str, count: int, group: str | None) -> Reading:
    """Read by `poll` in a loop."""
    tally = Tally(count, lambda: None)
    with _consumer(servers, topic, group) as consumer:
        while len(tally.got) < count:
            message = consumer.poll(_WAIT_S)
            if message is None or message.error():
                raise AssertionError(f"the consumer failed: {message and message.error()}")
            tally.add(message.value())
            if group is not None:
                consumer.store_offsets(message)
        return tally.reading()


def _consume(servers: str, topic: str, count: int, group: str | None) -> Reading:
    """Read by `consume` in batches; the offset of every batch's last message is stored."""
    tally = Tally(count, lambda: None)
    with _consumer(servers, topic, group) as consumer:
        while len(tally.got) < count:
            batch = consumer.consume(_BATCH, 0.1)
            for message in batch:
                if message.error():
                    raise AssertionError(f"the consumer failed: {message.error()}")
                tally.add(message.value())
            if group is not None and batch:
                consumer.store_offsets(batch[-1])
        return tally.reading()


@contextlib.contextmanager
def _bare_writer(servers: str, topic: str, data: bytes) -> Iterator[Callable[[], object]]:
    """Write by `produce` and `poll` until the delivery report, from a single thread."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": servers, "linger.ms": 0, "enable.idempotence": True})
    reports: list[object] = []

    def write() -> None:
        reports.clear()
        producer.produce(topic, data, on_delivery=lambda error, _: reports.append(error))
        limit = time.monotonic() + _WAIT_S
        while not reports and time.monotonic() < limit:
            producer.poll(1)
        if reports != [None]:
            raise AssertionError(f"the write was not confirmed: {reports}")

    yield write
    producer.flush(_WAIT_S)


def measure(run: Run, quick: bool) -> Iterator[Line]:
    """The lines of kafka."""
    kind: type[Kafka] | type[KafkaMock] = Kafka
    try:
        kind.available()
    except Unavailable:
        kind = KafkaMock
        yield Line("kafka's server", KafkaMock.title, "", None)
    with started(run, kind) as server:
        for group in (False, True):
            yield from _read(server, group, quick)
        topic = server.unique("w")
        feeds.fill_kafka(server.address, topic, 1)
        with (
            trunkline.connect(f"kafka://{server.address}?write_topic={topic}") as connection,
            _bare_writer(server.address, topic, feeds.payload(0)) as direct,
        ):
            yield from writing_lines(
                "kafka acks=all: confirmed write",
                quick,
                connection,
                lambda count: p50_us(direct, count),
                lambda count: from_threads(direct, count, 1),
                "from one",
            )


def _read(server: Kafka | KafkaMock, group: bool, quick: bool) -> Iterator[Line]:
    count, rounds = (200_000, 1) if quick else (800_000, 5)
    topic = server.unique("t")
    feeds.fill_kafka(server.address, topic, count)

    def bare(read: Callable[[str, str, int, str | None], Reading]) -> Reading:
        return read(server.address, topic, count, server.unique("g") if group else None)

    def dial(envelopes: bool) -> Reading:
        member = f"&group={server.unique('g')}" if group else "&partition=0"
        url = f"kafka://{server.address}/{topic}?offset=earliest{member}"
        return through_dial(url, count, envelopes=envelopes)

    peers = {
        "confluent-kafka, poll()": lambda: bare(_poll),
        "confluent-kafka, consume(500)": lambda: bare(_consume),
    }
    yield from reading_lines(
        f"kafka {'with' if group else 'without'} a group: read", rounds, peers, dial
    )

"""What tests of Kafka need beside the server: a way to cut a link to it, and a bare client.

A Kafka client asks a server where the servers are, and connects to those. `KafkaProxy` is a fault proxy that
puts its own port into these answers, so that every connection goes through it.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from tests.servers.base import HOST
from tests.servers.kafka import Kafka, KafkaMock
from trunkline.deadline import Deadline
from trunkline.testing.faultproxy import FaultProxy

__all__ = ["BareClient", "KafkaProxy", "make_topic"]

_quiet = logging.Logger("tests.kafka")
_quiet.addHandler(logging.NullHandler())


class KafkaProxy(FaultProxy):
    """A fault proxy to a server of which clients see nothing but the proxy."""

    def __init__(self, server: Kafka | KafkaMock, port: int | None = None) -> None:
        target = port or server.port
        super().__init__(target)
        self._theirs = HOST.encode() + struct.pack(">i", target)
        self._mine = HOST.encode() + struct.pack(">i", self.port)

    async def _pass(self, link: Any, way: Any, sink: Any, data: bytes) -> None:
        if way == "down":
            data = data.replace(self._theirs, self._mine)
        await super()._pass(link, way, sink, data)


def make_topic(server: Kafka | KafkaMock, partitions: int = 1, **config: str) -> str:
    """A topic of its own. The mock makes its topics itself, with four partitions."""
    name = server.unique("t")
    if isinstance(server, Kafka):
        return server.create(name, partitions, **config)
    client = BareClient(server)
    client.partitions(name)
    client.close()
    return name


class BareClient:
    """confluent-kafka as it is, on one server: writes, and reads a topic from its beginning."""

    def __init__(self, server: Kafka | KafkaMock) -> None:
        self._servers = {"bootstrap.servers": server.address}
        # One request at a time: one that is repeated, because the topic is new, would come after the next.
        settings = {**self._servers, "linger.ms": 1, "max.in.flight": 1}
        self._producer = Producer(settings, logger=_quiet)

    def write(
        self, topic: str, *messages: str | bytes, partition: int = 0, key: Any = None, **more: Any
    ) -> None:
        """Write them, in order, and wait until they are there."""
        failures = []
        for message in messages:
            while True:
                try:
                    self._producer.produce(
                        topic,
                        message,
                        key,
                        partition,
                        on_delivery=lambda error, _: failures.append(error) if error else None,
                        **more,
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)
        assert self._producer.flush(20) == 0
        assert not failures, failures[0]

    def partitions(self, topic: str) -> list[int]:
        """The numbers of its partitions; makes the topic where the server does that."""
        deadline = Deadline(20)
        while True:
            found = self._producer.list_topics(topic, timeout=10).topics[topic]
            if found.partitions and all(each.leader >= 0 for each in found.partitions.values()):
                return sorted(found.partitions)
            assert not deadline.expired(), found.error
            self._producer.poll(0.02)

    def read(self, topic: str, partitions: Iterable[int] | None = None) -> list[Any]:
        """All messages of the topic (librdkafka's own objects), partition by partition."""
        wanted = list(partitions) if partitions is not None else self.partitions(topic)
        consumer = Consumer(
            {
                **self._servers,
                "group.id": "bare",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
            },
            logger=_quiet,
        )
        found: list[Any] = []
        deadline = Deadline(20)
        for number in wanted:
            partition = TopicPartition(topic, number, 0)
            low, high = consumer.get_watermark_offsets(partition, timeout=10)
            partition.offset = low
            if low == high:
                continue
            consumer.assign([partition])
            while not found or found[-1].partition() != number or found[-1].offset() < high - 1:
                assert not deadline.expired(), f"{len(found)} messages"
                batch = consumer.consume(10_000, 0) or [m for m in (consumer.poll(0.5),) if m]
                found += [message for message in batch if message.error() is None]
        return found

    def values(self, topic: str) -> list[bytes]:
        return [message.value() for message in self.read(topic)]

    def committed(self, group: str, topic: str, partition: int = 0) -> int:
        """Where the group stands; negative where it does not."""
        consumer = Consumer({**self._servers, "group.id": group}, logger=_quiet)
        deadline = Deadline(20)
        while True:
            try:
                found: int = consumer.committed([TopicPartition(topic, partition)], timeout=5)[
                    0
                ].offset
                return found
            except KafkaException:
                if deadline.expired():
                    raise
                time.sleep(0.05)

    def close(self) -> None:
        """Its threads and sockets go with the last reference."""
        self._producer.flush(5)
        del self._producer

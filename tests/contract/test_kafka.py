"""kafka keeps the contract of streams."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.kafka import Kafka, KafkaMock
from tests.support.kafka import BareClient, KafkaProxy, make_topic
from tests.support.waiting import until
from trunkline.testing.contracts import ProxiedPeer, ScriptedPeer, StreamContract, closing


class KafkaPeer(ProxiedPeer):
    """A topic to read and one to write to, behind a fault proxy of its own."""

    def __init__(self, server: Kafka | KafkaMock, group: str | None = None) -> None:
        self._client = BareClient(server)
        self.proxy = KafkaProxy(server)
        self._topic, self._writes = make_topic(server), make_topic(server)
        query = f"?write_topic={self._writes}&partition=0" + (f"&group={group}" if group else "")
        self.address = f"kafka://{self.proxy.address}/{self._topic}{query}"
        self.options = {"reconnect": False}

    def send(self, data: str | bytes) -> None:
        self._client.write(self._topic, data)

    def received(self) -> bytes:
        return b"".join(message.value() for message in self._client.read(self._writes, [0]))

    def wait_links(self, count: int) -> None:
        """librdkafka has several connections for one link."""
        until(
            lambda: bool(self.proxy.live) == bool(count),
            f"{count} links; there are {self.proxy.live}",
        )

    def close(self) -> None:
        self._client.close()
        self.proxy.stop()


class TestKafka(StreamContract):
    drops_oldest = False
    no_data = (5, ["a"], 1.5)  # None is Kafka's null value

    @pytest.fixture
    def peer(self, kafka: Kafka | KafkaMock) -> Iterator[ScriptedPeer]:
        yield from closing(KafkaPeer(kafka))


class TestKafkaGroup(TestKafka):
    @pytest.fixture
    def peer(self, kafka: Kafka | KafkaMock) -> Iterator[ScriptedPeer]:
        yield from closing(KafkaPeer(kafka, kafka.unique("g")))

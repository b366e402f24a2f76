"""amqp and amqps keep the contract of streams."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.rabbitmq import RabbitMq
from tests.support.certs import Certs
from tests.support.rabbit import Rabbit
from tests.support.waiting import until
from trunkline.testing.contracts import ProxiedPeer, ScriptedPeer, StreamContract, closing
from trunkline.testing.faultproxy import FaultProxy


class RabbitPeer(ProxiedPeer):
    """A queue to read and one to write to, behind a fault proxy."""

    def __init__(self, server: RabbitMq, certs: Certs | None = None) -> None:
        self._client, self._tls = Rabbit(server), certs is not None
        self.proxy = FaultProxy(server.ports["tls"] if certs else server.port)
        self._reads, self._writes = server.unique("r"), server.unique("w")
        self._client.queue(self._reads)
        self._client.queue(self._writes)
        self._received = b""
        query = f"?queue={self._reads}&write_topic={self._writes}"
        self.address = f"{'amqps' if certs else 'amqp'}://{self.proxy.address}/{query}"
        self.options = {"reconnect": False, "username": "u", "password": "p"}
        if certs:
            self.options["cafile"] = str(certs.ca)

    def send(self, data: str | bytes) -> None:
        self._client.send(self._reads, data)

    def received(self) -> bytes:
        while (body := self._client.channel.basic_get(self._writes, auto_ack=True)[2]) is not None:
            self._received += body
        return self._received

    def wait_links(self, count: int) -> None:
        until(
            lambda: self.proxy.live == count == self._client.readers(self._reads),
            f"{count} links; there are {self.proxy.live}",
        )

    def drop(self) -> None:
        # A FIN right behind data, without TLS's own goodbye, is sometimes not noticed by RabbitMQ 3.10: it
        # would give messages to the dead link until its heartbeat runs out.
        (self.proxy.reset if self._tls else self.proxy.cut)()

    def close(self) -> None:
        self.proxy.stop()
        self._client.delete(self._reads, self._writes)
        self._client.__exit__()


class TestAmqp(StreamContract):
    drops_oldest = False

    @pytest.fixture
    def peer(self, rabbitmq: RabbitMq) -> Iterator[ScriptedPeer]:
        yield from closing(RabbitPeer(rabbitmq))


class TestAmqps(TestAmqp):
    @pytest.fixture
    def peer(self, rabbitmq: RabbitMq, certs: Certs) -> Iterator[ScriptedPeer]:
        yield from closing(RabbitPeer(rabbitmq, certs))

"""mqtt, mqtts and mqtt over WebSocket keep the contract of streams, on a real broker, for every QoS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.mosquitto import Mosquitto
from tests.support.certs import Certs
from tests.support.mqtt_side import MqttSide
from trunkline.testing.contracts import ProxiedPeer, ScriptedPeer, StreamContract, closing
from trunkline.testing.faultproxy import FaultProxy


class MqttPeer(ProxiedPeer):
    """What is read is another topic than what is written, so that nobody reads what he wrote himself."""

    def __init__(
        self,
        server: Mosquitto,
        scheme: str = "mqtt",
        qos: int = 0,
        *,
        certs: Certs | None = None,
        **options: object,
    ) -> None:
        name = server.unique("peer")
        self._read, self._written = f"{name}/read", f"{name}/written"
        port = {"mqtt": "tcp", "mqtts": "tls", "ws+mqtt": "ws", "wss+mqtt": "wss"}[scheme]
        self.proxy = FaultProxy(server.ports[port])
        self._side = MqttSide(server.port)
        self._side.watch(self._written)
        self._qos = qos
        self.address = f"{scheme}://{self.proxy.address}?topic={self._read}&write_topic={self._written}&qos={qos}"
        self.options = {"reconnect": False, **options}
        if certs is not None:
            self.options |= {"cafile": str(certs.ca), "username": "u", "password": "p"}

    def send(self, data: str | bytes) -> None:
        self._side.publish(self._read, data, qos=self._qos)

    def received(self) -> bytes:
        return b"".join(self._side.seen[self._written])

    def close(self) -> None:
        self.proxy.stop()
        self._side.close()


class TestMqtt(StreamContract):
    @pytest.fixture
    def peer(self, mosquitto: Mosquitto) -> Iterator[ScriptedPeer]:
        yield from closing(MqttPeer(mosquitto))


class TestMqttQos1(StreamContract):
    drops_oldest = False

    @pytest.fixture
    def peer(self, mosquitto: Mosquitto) -> Iterator[ScriptedPeer]:
        yield from closing(MqttPeer(mosquitto, qos=1))


class TestMqtt5Qos2(StreamContract):
    drops_oldest = False

    @pytest.fixture
    def peer(self, mosquitto: Mosquitto) -> Iterator[ScriptedPeer]:
        yield from closing(MqttPeer(mosquitto, qos=2, version="5"))


class TestMqttsKept(StreamContract):
    """TLS, and a session that the broker keeps."""

    drops_oldest = False

    @pytest.fixture
    def peer(self, mosquitto: Mosquitto, certs: Certs) -> Iterator[ScriptedPeer]:
        name = mosquitto.unique()
        yield from closing(
            MqttPeer(
                mosquitto, "mqtts", 1, certs=certs, clean=False, client_id=name, version="3.1.1"
            )
        )


class TestMqttOverWebSocket(StreamContract):
    @pytest.fixture
    def peer(self, mosquitto: Mosquitto) -> Iterator[ScriptedPeer]:
        yield from closing(MqttPeer(mosquitto, "ws+mqtt", version="5"))


class TestMqttOverSecureWebSocket(StreamContract):
    drops_oldest = False

    @pytest.fixture
    def peer(self, mosquitto: Mosquitto, certs: Certs) -> Iterator[ScriptedPeer]:
        yield from closing(MqttPeer(mosquitto, "wss+mqtt", 1, certs=certs))

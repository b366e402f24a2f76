"""A plain MQTT client for tests, as somebody else would use the broker: paho-mqtt with its own thread."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

__all__ = ["MqttSide", "properties"]

_WAIT_S = 10.0


class MqttSide:
    """Connected to 127.0.0.1:`port`. What it watches is in `seen`, by topic and in order."""

    def __init__(self, port: int) -> None:
        self.seen: dict[str, list[bytes]] = defaultdict(list)
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.max_inflight_messages = 20
        self._client.on_connect = lambda *_: self._ready.set()
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _, __, message: self.seen[message.topic].append(
            bytes(message.payload)
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._wait()

    def watch(self, topic: str, qos: int = 2) -> None:
        """Read a topic; returns when the broker has confirmed it."""
        self._client.subscribe(topic, qos)
        self._wait()

    def publish(
        self,
        topic: str,
        data: str | bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        found: Any = None,
    ) -> None:
        """Write, and wait until it is confirmed."""
        info = self._client.publish(topic, data, qos, retain, found)
        info.wait_for_publish(_WAIT_S)
        assert info.is_published()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        del self._client  # only then it closes the sockets that woke its thread

    def __enter__(self) -> MqttSide:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _on_message(self, client: object, data: object, message: paho.MQTTMessage) -> None:
        self.seen[message.topic].append(bytes(message.payload))

    def _wait(self) -> None:
        assert self._ready.wait(_WAIT_S), "the broker did not confirm"
        self._ready.clear()


def properties(**named: Any) -> Any:
    """Of a message of MQTT 5, by paho's names."""
    found = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in named.items():
        setattr(found, name, value)
    return found

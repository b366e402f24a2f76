"""MQTT packets by hand, for tests of what no client library writes."""

from __future__ import annotations

import socket
from types import TracebackType

from tests.support.sockets import Peer

__all__ = ["RawMqtt", "accept", "packet", "publish", "publish_v5", "text", "user_property"]

_WAIT_S = 10.0


def length(count: int) -> bytes:
    """As MQTT writes how long something is."""
    found = b""
    while True:
        count, digit = divmod(count, 128)
        found += bytes((digit | (0x80 if count else 0),))
        if not count:
            return found


def packet(head: int, body: bytes) -> bytes:
    return bytes((head,)) + length(len(body)) + body


def text(data: str | bytes) -> bytes:
    """With its length before it."""
    data = data.encode() if isinstance(data, str) else data
    return len(data).to_bytes(2, "big") + data


def user_property(name: str | bytes, value: str | bytes) -> bytes:
    return b"\x26" + text(name) + text(value)


def publish(
    topic: str | bytes, payload: bytes, qos: int = 0, number: int = 1, *, kept: bool = False
) -> bytes:
    """A message of MQTT 3.1.1."""
    mid = number.to_bytes(2, "big") if qos else b""
    return packet(0x30 | qos << 1 | kept, text(topic) + mid + payload)


def publish_v5(
    topic: str | bytes,
    payload: bytes,
    properties: bytes,
    qos: int = 0,
    number: int = 1,
    *,
    kept: bool = False,
) -> bytes:
    """A message of MQTT 5; `properties` without their length."""
    return publish(topic, length(len(properties)) + properties + payload, qos, number, kept=kept)


def accept(peer: Peer, *, v5: bool, qos: int = 0, resumed: bool = False) -> None:
    """As a broker: accept the login and the subscription of one topic."""
    peer.read()
    peer.send(packet(0x20, bytes((resumed, 0)) + bytes(v5)))
    number = peer.read()[2:4]
    peer.send(packet(0x90, number + bytes(v5) + bytes((qos,))))


class RawMqtt:
    """A client of MQTT 5 that writes any bytes to a broker on 127.0.0.1. A context manager."""

    def __init__(self, port: int, client_id: str) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), _WAIT_S)
        self._sock.settimeout(_WAIT_S)
        self.send(packet(0x10, text("MQTT") + b"\x05\x02\x00\x3c\x00" + text(client_id)))
        assert self._sock.recv(1000)[0] == 0x20, "no login"

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def publish(self, topic: str, payload: bytes, properties: bytes, *, kept: bool = False) -> None:
        """A QoS 1 message; returns when the broker has it."""
        self.send(publish_v5(topic, payload, properties, 1, kept=kept))
        assert self._sock.recv(1000)[0] == 0x40, "the broker did not take it"

    def __enter__(self) -> RawMqtt:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sock.close()

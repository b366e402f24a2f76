"""Message brokers: any byte is life, and so is the taking of our own data; a silent broker is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.support.sockets import Handler, Peer, SocketServer
from tests.support.waiting import Background, until
from trunkline import connect

BIG = b"x" * 60_000
LARGE = 6_000_000
INFO = (
    b'INFO {"server_id":"x","version":"2.10.0","max_payload":10000000,"proto":1,"headers":true}\r\n'
)


class Nats:
    """The server's side of NATS, as far as these tests need it."""

    url = "nats://127.0.0.1:{}?topic=t"
    pong = b"PONG\r\n"
    message = b"MSG t 1 %d\r\n%s\r\n" % (len(BIG), BIG)

    @classmethod
    def greet(cls, peer: Peer) -> None:
        peer.send(INFO)
        peer.read_until(b"PING\r\n")
        peer.send(cls.pong)
        peer.read_until(b"SUB t")
        peer.read_until(b"PING\r\n")
        peer.send(cls.pong)


class Mqtt:
    """The broker's side of MQTT 3.1.1, the same."""

    url = "mqtt://127.0.0.1:{}?topic=t"
    pong = b"\xd0\x00"
    message = b"\x30" + bytes((0x80 | (len(BIG) + 3) % 128, 0x80 | (len(BIG) + 3) // 128 % 128, 3))
    message += b"\x00\x01t" + BIG

    @staticmethod
    def greet(peer: Peer) -> None:
        peer.read_exactly(1)
        peer.read_exactly(peer.read_exactly(1)[0])
        peer.send(b"\x20\x02\x00\x00")
        peer.read_exactly(1)
        subscribe = peer.read_exactly(peer.read_exactly(1)[0])
        peer.send(b"\x90\x03" + subscribe[:2] + b"\x00")


BROKERS = pytest.mark.parametrize("broker", [Nats, Mqtt])
Broker = type[Nats] | type[Mqtt]


def flowing(broker: Broker) -> Handler:
    """A message in many pieces, for two seconds, and no other word meanwhile; then silence."""

    def handler(peer: Peer) -> None:
        broker.greet(peer)
        for start in range(0, len(broker.message), 3000):
            peer.send(broker.message[start : start + 3000])
            time.sleep(0.1)
        peer.stopping.wait()

    return handler


def taking(broker: Broker) -> Handler:
    """Takes a large message slowly and answers no ping meanwhile; then every one."""

    def handler(peer: Peer) -> None:
        broker.greet(peer)
        size = 0
        while size < LARGE:
            size += len(peer.read(60_000))
            time.sleep(0.02)
        peer.send(broker.message)
        while peer.read():
            peer.send(broker.pong)

    return handler


def with_server(make: Callable[[Broker], Handler], broker: Broker) -> SocketServer:
    return SocketServer(make(broker))


@BROKERS
def test_a_message_that_flows_for_long_is_life_and_silence_is_none(broker: Broker) -> None:
    with with_server(flowing, broker) as server:
        options = {"pingInterval": 1000, "pingTimeout": 1000, "reconnect": False}
        with connect(broker.url.format(server.port), **options) as conn:
            assert conn.read(30_000) == BIG.decode()
            until(lambda: conn.stats().state == "lost", "the loss", 20)
            assert "nothing came from the peer for 1 s" in str(conn.stats().last_error)


@BROKERS
def test_our_own_message_that_is_taken_slowly_is_life(broker: Broker) -> None:
    with with_server(taking, broker) as server:
        options = {"pingInterval": 1000, "pingTimeout": 1000, "reconnect": False}
        with connect(broker.url.format(server.port), **options) as conn:
            writing = Background(lambda: conn.write(b"y" * LARGE, 60_000))
            assert conn.read(60_000) == BIG.decode()
            assert writing.result(60) == LARGE
            assert conn.stats().outages == 0


@BROKERS
def test_ping_timeout_is_obeyed(broker: Broker) -> None:
    def mute(peer: Peer) -> None:
        broker.greet(peer)
        while peer.read():
            pass

    with SocketServer(mute) as server:
        url = broker.url.format(server.port)
        with connect(url, pingInterval=1000, pingTimeout=0, reconnect=False) as patient:
            with connect(url, pingInterval=1000, pingTimeout=200, reconnect=False) as conn:
                until(lambda: conn.stats().state == "lost", "the loss", 20)
                assert "nothing came from the peer for 0.2 s" in str(conn.stats().last_error)
            assert patient.read(3000) is None
            assert patient.stats().state == "open"

"""A link that had worked is dialled again whatever the peer refuses it for; the first dial is one attempt."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.support.certs import Certs
from tests.support.sockets import Peer, SocketServer, say
from tests.support.waiting import until
from tests.support.websocket_peer import upgrade
from trunkline import Dial, connect, last_error
from trunkline.proxy.connection import Connection

SOON: dict[str, object] = {"reconnect": True, "interval": 5, "maxInterval": 20}
REFUSALS = (400, 401, 403, 404, 405, 407, 410, 418, 426, 429, 451, 500, 503)


def dial(address: str, **options: object) -> Connection:
    conn = Dial(address, {**SOON, **options})
    assert conn is not None, last_error()
    return conn


def refusing(statuses: tuple[int, ...]) -> Callable[[Peer], None]:
    """A WebSocket server whose first connection is short; the following ones are refused with one status
    each; those after them are good."""

    def handler(peer: Peer) -> None:
        if 1 <= peer.number <= len(statuses):
            peer.read_until(b"\r\n\r\n")
            peer.send(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % statuses[peer.number - 1])
            return
        upgrade(peer)
        peer.send(b"\x81\x02n%d" % min(peer.number, 9))
        if peer.number:
            while peer.read():
                pass

    return handler


def test_no_status_on_a_reconnect_ends_a_websocket() -> None:
    with SocketServer(refusing(REFUSALS)) as server:
        with dial(f"ws://127.0.0.1:{server.port}") as conn:
            assert conn.read(5000) == "n0"
            until(lambda: conn.read(50) == "n9", "the link after all refusals", 20)
            assert (conn.stats().state, conn.stats().reconnects) == ("open", 1)
        assert len(server.peers) == len(REFUSALS) + 2


def test_retry_counts_refusals_and_the_first_dial_is_one_attempt() -> None:
    with SocketServer(refusing((403,) * 50)) as server:
        with dial(f"ws://127.0.0.1:{server.port}", retry=3) as conn:
            until(lambda: conn.stats().state == "failed", "giving up", 20)
            assert "3 attempts in a row have failed" in str(conn.stats().last_error)
            assert "403" in str(conn.stats().last_error)
            assert len(server.peers) == 4
        assert Dial(f"ws://127.0.0.1:{server.port}", SOON) is None
        assert "403" in str(last_error())
        assert len(server.peers) == 5


def test_a_single_refusal_is_over_soon_without_max_interval() -> None:
    with (
        SocketServer(refusing((403,))) as server,
        connect(f"ws://127.0.0.1:{server.port}", reconnect=True, interval=50) as conn,
    ):
        until(lambda: conn.stats().reconnects == 1, "the new link", 10)


def test_a_certificate_that_is_wrong_once(certs: Certs) -> None:
    right, wrong = certs.server_context(), certs.stranger.server_context()
    with SocketServer(say(b"hello"), tls=right) as server:
        address = server.url.replace("127.0.0.1", "localhost")
        with dial(address, cafile=str(certs.ca)) as conn:
            assert conn.read(5000) == "hello"
            server.tls = wrong
            server.drop()
            until(lambda: "is not trusted" in str(conn.stats().last_error), "the refusal", 20)
            server.tls = right
            until(lambda: conn.read(50) == "hello", "the link with the right certificate", 20)
            assert conn.stats().state == "open"


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_a_proxy_that_refuses_the_login_for_a_while(kind: str) -> None:
    closed = [False]

    def http(peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        if closed[0]:
            peer.send(b"HTTP/1.1 407 Login\r\nContent-Length: 0\r\n\r\n")
            return
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        while peer.read():
            pass

    def socks5(peer: Peer) -> None:
        peer.read_exactly(peer.read_exactly(2)[1])
        if closed[0]:
            peer.send(b"\x05\xff")
            return
        peer.send(b"\x05\x00")
        peer.read()
        peer.send(b"\x05\x00\x00\x01" + bytes(6) + b"hello")
        while peer.read():
            pass

    with (
        SocketServer(http if kind == "http" else socks5) as proxy,
        dial(f"tcp://target.invalid:1|proxy={kind}://127.0.0.1:{proxy.port}") as conn,
    ):
        assert conn.read(5000) == "hello"
        closed[0] = True
        proxy.drop()
        until(
            lambda: "login" in str(conn.stats().last_error) or "407" in str(conn.stats().last_error)
        )
        closed[0] = False
        until(lambda: conn.read(50) == "hello", "the link through the proxy", 20)


def test_links_that_are_short_are_dialled_less_and_less_often() -> None:
    begun: list[float] = []
    ended: list[float] = []

    def short(peer: Peer) -> None:
        begun.append(time.monotonic())
        peer.send(b"x")
        time.sleep(0.2)
        ended.append(time.monotonic())

    with SocketServer(short) as server, dial(server.url, interval=100, maxInterval=60_000):
        until(lambda: len(begun) == 5, "five links", 60)
    waits = [later - earlier for earlier, later in zip(ended, begun[1:], strict=False)]
    for number, wait in enumerate(waits):
        assert wait > 0.1 * 1.6**number - 0.01, waits

"""SOCKS4 and SOCKS4a, byte by byte, against a proxy that plays a script."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.support.sockets import Peer, SocketServer
from trunkline.actors.driver import FatalError
from trunkline.actors.net.socks4 import socks4
from trunkline.errors import DialError

GRANTED = b"\x00\x5a" + bytes(6)


def _ask(answer: bytes, host: str = "10.1.2.3", port: int = 1883, user: str | None = None) -> bytes:
    """What the proxy was sent. It answers with `answer` and closes."""

    def proxy(peer: Peer) -> None:
        peer.read()
        peer.send(answer)

    async def body(server: SocketServer) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", server.port))
            await socks4(sock, "127.0.0.1:1080", (host, port), user, None)

    with SocketServer(proxy) as server:
        asyncio.run(body(server))
        return server.wait_peers(1)[0].received


def test_an_address_is_asked_for_as_four_bytes() -> None:
    assert _ask(GRANTED) == b"\x04\x01\x07\x5b\x0a\x01\x02\x03\x00"


def test_a_name_follows_the_user() -> None:
    sent = _ask(GRANTED, "broker.example", user="ann")
    assert sent == b"\x04\x01\x07\x5b\x00\x00\x00\x01ann\x00broker.example\x00"


def test_a_name_beyond_ascii_goes_as_the_proxy_can_look_it_up() -> None:
    assert _ask(GRANTED, "bücher.example").endswith(b"xn--bcher-kva.example\x00")


@pytest.mark.parametrize("code", [92, 93])
def test_a_refused_user_is_final(code: int) -> None:
    with pytest.raises(FatalError, match="refused the user; check proxy=") as caught:
        _ask(bytes((0, code)) + bytes(6))
    assert caught.value.code == code


def test_a_refusal_without_a_reason_may_pass() -> None:
    with pytest.raises(DialError, match="is unreachable through proxy") as caught:
        _ask(b"\x00\x5b" + bytes(6))
    assert not isinstance(caught.value, FatalError)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 400", "does not speak SOCKS4"),
        (b"\x00\x5a", "closed the connection in its handshake"),
    ],
)
def test_another_answer_is_told(answer: bytes, text: str) -> None:
    with pytest.raises(DialError, match=text):
        _ask(answer)


@pytest.mark.parametrize(
    ("host", "user", "text"),
    [("::1", None, "SOCKS4 knows none; use socks5://"), ("10.1.2.3", "a\0b", "holds no zero byte")],
)
def test_what_socks4_cannot_say_is_told_before_anything_is_sent(
    host: str, user: str | None, text: str
) -> None:
    async def body() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            with pytest.raises(FatalError, match=text):
                await socks4(ours, "127.0.0.1:1080", (host, 1), user, None)
            theirs.setblocking(False)
            with pytest.raises(BlockingIOError):
                theirs.recv(1)

    asyncio.run(body())

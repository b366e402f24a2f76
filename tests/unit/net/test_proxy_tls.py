"""TLS to a proxy, behind which an ordinary socket is used: bytes both ways, ends, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable

import pytest

from tests.support.certs import Certs
from tests.support.sockets import Handler, Peer, SocketServer, echo, say
from trunkline.actors.driver import FatalError
from trunkline.actors.net.proxy_tls import proxy_context, secured
from trunkline.address import Address, parse_address
from trunkline.errors import DialError

MUCH = bytes(range(256)) * 4000


def _address(port: int, certs: Certs | None) -> Address:
    cafile = f"&cafile={certs.ca}" if certs is not None else ""
    return parse_address(f"tcp://10.0.0.1:80|proxy=https://127.0.0.1:{port}{cafile}", {})


def _through(
    handler: Handler,
    tls: ssl.SSLContext | None,
    certs: Certs | None,
    use: Callable[[socket.socket], Awaitable[None]],
    *,
    last: bytes = b"",
) -> None:
    """Connect to a server with TLS as to a proxy, and hand `use` the socket for what goes through it. `last`:
    what the server is to receive after the socket was closed."""

    async def body(port: int) -> None:
        address = _address(port, certs)
        sock = socket.create_connection(("127.0.0.1", port), 10)
        sock.setblocking(False)
        try:
            inner = await secured(sock, address.option("proxy"), proxy_context(address), 10)
        except BaseException:
            sock.close()
            raise
        with inner:
            await use(inner)
        async with asyncio.timeout(10):
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(*others, return_exceptions=True)

    with SocketServer(handler, tls=tls) as server:
        asyncio.run(body(server.port))
        if last:
            server.wait_received(last)


async def _read_all(sock: socket.socket, count: int | None = None) -> bytes:
    """So many bytes, or all until the end."""
    loop, data = asyncio.get_running_loop(), b""
    async with asyncio.timeout(20):
        while count is None or len(data) < count:
            piece = await loop.sock_recv(sock, 65536)
            if not piece:
                break
            data += piece
    return data


def test_bytes_go_both_ways_through_an_ordinary_socket(certs: Certs) -> None:
    async def use(sock: socket.socket) -> None:
        assert not isinstance(sock, ssl.SSLSocket)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        loop = asyncio.get_running_loop()
        writing = asyncio.create_task(loop.sock_sendall(sock, MUCH))
        assert await _read_all(sock, len(MUCH)) == MUCH
        await writing

    _through(echo, certs.server_context(), certs, use)


def test_the_end_of_the_proxy_is_the_end_of_the_socket(certs: Certs) -> None:
    def proxy(peer: Peer) -> None:
        peer.send(b"last words")
        peer.close()

    async def use(sock: socket.socket) -> None:
        assert await _read_all(sock) == b"last words"

    _through(proxy, certs.server_context(), certs, use)


@pytest.mark.parametrize("way", ["goodbye", "reset"])
def test_a_proxy_that_ends_right_after_the_handshake_is_no_silence(certs: Certs, way: str) -> None:
    def proxy(peer: Peer) -> None:
        peer.close() if way == "goodbye" else peer.reset()

    async def use(sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            assert await _read_all(sock) == b""

    for _ in range(10):  # sometimes before the carrier has begun
        _through(proxy, certs.server_context(), certs, use)


def test_what_was_written_before_our_end_arrives(certs: Certs) -> None:
    async def use(sock: socket.socket) -> None:
        await asyncio.get_running_loop().sock_sendall(sock, b"last words")  # and is closed at once

    _through(say(), certs.server_context(), certs, use, last=b"last words")


async def _never(sock: socket.socket) -> None:
    raise AssertionError("there is no link to use")


def test_a_certificate_that_is_not_known_is_final(certs: Certs) -> None:
    with pytest.raises(FatalError, match=r"^proxy: .*certificate"):
        _through(echo, certs.server_context(), None, _never)


def test_a_proxy_without_tls_is_named(certs: Certs) -> None:
    with pytest.raises(DialError, match=r"^proxy: "):
        _through(say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), None, certs, _never)


def test_the_context_trusts_what_the_address_says(certs: Certs) -> None:
    strict = proxy_context(_address(1, certs))
    assert strict.verify_mode is ssl.CERT_REQUIRED
    loose = proxy_context(
        parse_address("tcp://10.0.0.1:80|proxy=https://127.0.0.1:1&insecureSkipVerify=true", {})
    )
    assert loose.verify_mode is ssl.CERT_NONE
    with pytest.raises(FatalError, match="cafile"):
        proxy_context(
            parse_address("tcp://10.0.0.1:80|proxy=https://127.0.0.1:1&cafile=/not/there", {})
        )

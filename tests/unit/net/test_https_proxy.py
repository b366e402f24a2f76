"""Links through an https:// proxy behave as direct ones: much data both ways, pressure back, ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.support.certs import Certs
from tests.support.http_proxy import HttpProxy, HttpsProxy
from tests.support.loops import Run, on_both_loops
from tests.support.recorder import Recorder, opened
from tests.support.sockets import Peer, SocketServer, deaf, echo
from trunkline.actors.driver import Ending
from trunkline.actors.drivers.sock.driver import TcpDriver, TlsDriver
from trunkline.actors.net import socket_traffic
from trunkline.deadline import Deadline

pytestmark = on_both_loops
MUCH = bytes(range(256)) * 20_000


@contextlib.contextmanager
def https_proxy(certs: Certs) -> Iterator[HttpsProxy]:
    with HttpProxy() as http, HttpsProxy(http, certs.server_context()) as front:
        yield front


def through(front: HttpsProxy, server: SocketServer, certs: Certs) -> str:
    return f"{server.url}|proxy=https://127.0.0.1:{front.port}&cafile={certs.ca}"


@pytest.mark.parametrize("kind", [TcpDriver, TlsDriver])
def test_much_goes_both_ways(run: Run, certs: Certs, kind: type[TcpDriver]) -> None:
    async def body() -> None:
        sink = Recorder()
        driver = await opened(kind, through(front, server, certs), sink)
        assert await driver.send(MUCH, Deadline(20)) == len(MUCH)
        await sink.until(lambda: len(sink.stream) >= len(MUCH))
        assert sink.stream == MUCH
        assert driver.traffic().received >= len(MUCH)
        await driver.close()
        await settled()

    tls = certs.server_context() if kind is TlsDriver else None
    with (
        SocketServer(echo, tls=tls) as server,
        HttpProxy() as http,
        HttpsProxy(http, certs.server_context()) as front,
    ):
        run(body())


def test_a_peer_that_takes_nothing_stops_the_writer(run: Run, certs: Certs) -> None:
    async def body() -> None:
        driver = await opened(TcpDriver, through(front, server, certs), Recorder())
        taken = await driver.send(bytes(64 << 20), Deadline(0.5))
        assert taken < 64 << 20
        assert driver.traffic().waiting
        await driver.end(Ending.LOST)
        await settled()

    with https_proxy(certs) as front, SocketServer(deaf) as server:
        run(body())


@pytest.mark.parametrize("leave", [Peer.close, Peer.reset])
def test_the_end_of_the_peer_is_the_end_of_the_link(
    run: Run, certs: Certs, leave: Callable[[Peer], None]
) -> None:
    def last_words(peer: Peer) -> None:
        peer.send(b"last words")
        peer.read_until(b"go")
        leave(peer)

    async def body() -> None:
        sink = Recorder()
        driver = await opened(TcpDriver, through(front, server, certs), sink)
        await sink.until(lambda: sink.stream == b"last words")
        await driver.send("go", Deadline(5))
        await sink.until(lambda: sink.losses)
        await driver.close()
        await settled()

    with (
        SocketServer(last_words) as server,
        HttpProxy() as http,
        HttpsProxy(http, certs.server_context()) as front,
    ):
        run(body())


def test_what_was_written_before_the_end_arrives(run: Run, certs: Certs) -> None:
    async def body() -> None:
        driver = await opened(TcpDriver, through(front, server, certs), Recorder())
        assert await driver.send(MUCH + b"the end", Deadline(20)) == len(MUCH) + 7
        await driver.close()
        await settled()
        await asyncio.to_thread(server.wait_received, b"the end")
        assert server.peers[0].received == MUCH + b"the end"

    def sink(peer: Peer) -> None:
        while peer.read():
            pass

    with https_proxy(certs) as front, SocketServer(sink) as server:
        run(body())


async def settled() -> None:
    """The task that carries the bytes has ended and left nothing behind."""
    for _ in range(500):
        if not socket_traffic._carriers and len(asyncio.all_tasks()) == 1:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"left: {socket_traffic._carriers}, {asyncio.all_tasks()}")

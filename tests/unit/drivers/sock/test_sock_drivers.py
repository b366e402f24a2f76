"""tcp, tls and unix: chunks, back-pressure, deadlines, every kind of end."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.support.certs import Certs
from tests.support.loops import Run, on_both_loops
from tests.support.recorder import Recorder, opened, some_turns
from tests.support.sockets import Handler, Peer, SocketServer, deaf, echo, unused_port
from trunkline.actors.driver import FatalError, Overflow, StreamDriver
from trunkline.actors.drivers.sock.driver import TcpDriver, TlsDriver, UnixDriver
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout

pytestmark = on_both_loops
KINDS = ("tcp", "tls", "unix")
SOON = 0.1


def say_and_leave(*pieces: bytes) -> Handler:
    def handler(peer: Peer) -> None:
        for piece in pieces:
            peer.send(piece)
        peer.sock.shutdown(socket.SHUT_WR)
        peer.read()

    return handler


class Server:
    """One of the three kinds of stream server, and the driver that fits it."""

    def __init__(self, kind: str, certs: Certs, folder: Path) -> None:
        self.tls = certs.server_context() if kind == "tls" else None
        self.path = folder / "sock" if kind == "unix" else None
        self.driver: type[StreamDriver] = {"tcp": TcpDriver, "tls": TlsDriver, "unix": UnixDriver}[
            kind
        ]
        self.options: dict[str, object] = {"cafile": str(certs.ca)} if kind == "tls" else {}

    def serve(self, handler: Handler) -> SocketServer:
        return SocketServer(handler, tls=self.tls, path=self.path)

    async def dial(self, server: SocketServer, sink: Recorder) -> StreamDriver:
        return await opened(self.driver, server.url, sink, **self.options)


@pytest.fixture(params=KINDS)
def kind(
    request: pytest.FixtureRequest, certs: Certs, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    return Server(request.param, certs, tmp_path_factory.mktemp("s"))


def test_what_is_sent_comes_back(run: Run, kind: Server) -> None:
    async def body() -> None:
        sink = Recorder()
        driver = await kind.dial(server, sink)
        assert await driver.send("grüße", Deadline(5)) == 7
        assert await driver.send(b"\x00\xff", Deadline(5)) == 2
        await sink.until(lambda: sink.stream == "grüße".encode() + b"\x00\xff")
        await driver.close()
        await driver.close()
        assert sink.losses == []
        with pytest.raises(OSError, match="gone"):
            await driver.send("late", Deadline(5))

    with kind.serve(echo) as server:
        run(body())


def test_a_big_write_goes_out_whole_and_in_order(run: Run, kind: Server) -> None:
    big, small = bytes(range(256)) * 12_000, b"small"

    async def body() -> None:
        sink = Recorder()
        driver = await kind.dial(server, sink)
        counts = await asyncio.gather(
            driver.send(big, Deadline(10)), driver.send(small, Deadline(10))
        )
        assert counts == [len(big), len(small)]
        await sink.until(lambda: len(sink.stream) >= len(big) + len(small))
        assert sink.stream == big + small
        await driver.close()

    with kind.serve(echo) as server:
        run(body())


def test_data_before_the_peers_end_arrives_and_then_the_end(run: Run, kind: Server) -> None:
    async def body() -> None:
        sink = Recorder()
        driver = await kind.dial(server, sink)
        assert await sink.wait_lost() is None
        assert sink.stream == b"last words"
        with pytest.raises(OSError, match="gone"):
            await driver.send("too late", Deadline(5))
        await driver.close()

    with kind.serve(say_and_leave(b"last words")) as server:
        run(body())


def test_a_peer_that_ends_only_its_own_side_counts_as_closed(run: Run) -> None:
    async def body() -> None:
        sink = Recorder()
        driver = await opened(TcpDriver, server.url, sink)
        assert await sink.wait_lost() is None
        await driver.close()

    with SocketServer(say_and_leave()) as server:
        run(body())


def test_a_reset_is_an_error(run: Run) -> None:
    def reset(peer: Peer) -> None:
        peer.read_until(b"now")
        peer.reset()

    async def body() -> None:
        sink = Recorder()
        driver = await opened(TcpDriver, server.url, sink)
        await driver.send("now", Deadline(5))
        assert isinstance(await sink.wait_lost(), ConnectionError)
        await driver.close()

    with SocketServer(reset) as server:
        run(body())


def test_a_full_link_takes_nothing_and_says_so_by_the_deadline(run: Run, kind: Server) -> None:
    async def body() -> None:
        sink = Recorder()
        driver = await kind.dial(server, sink)
        chunk = bytes(200_000)
        while await driver.send(chunk, Deadline(SOON)):
            pass
        assert await driver.send("x", Deadline(SOON)) == 0
        assert await driver.send("x", Deadline(0)) == 0
        assert sink.losses == []
        await driver.close()

    with kind.serve(deaf) as server:
        run(body())


def test_a_big_write_to_a_full_link_returns_what_was_taken(run: Run, kind: Server) -> None:
    async def body() -> None:
        driver = await kind.dial(server, Recorder())
        size = 64 << 20
        taken = await driver.send(bytes(size), Deadline(SOON))
        assert 0 < taken < size
        assert taken % (256 * 1024) == 0
        await driver.close()

    with kind.serve(deaf) as server:
        run(body())


def test_a_waiting_write_ends_when_the_link_does(run: Run) -> None:
    async def body() -> None:
        sink = Recorder()
        driver = await opened(TcpDriver, server.url, sink)
        waiting = asyncio.create_task(driver.send(bytes(64 << 20), Deadline(30)))
        await asyncio.sleep(0)
        server.wait_peers(1)[0].close()
        with pytest.raises(OSError, match="gone"):
            await waiting
        await driver.close()

    with SocketServer(deaf) as server:
        run(body())


def test_a_paused_driver_stops_the_peer_and_loses_nothing(run: Run, kind: Server) -> None:
    total = 24 << 20

    def pour(peer: Peer) -> None:
        peer.send(bytes(total))
        peer.read()

    async def body() -> None:
        sink = Recorder()
        driver = await kind.dial(server, sink)
        driver.pause()
        before = len(sink.stream)
        await some_turns()
        assert len(sink.stream) - before <= 1 << 20
        driver.resume()
        await sink.until(lambda: sum(map(len, sink.received)) == total, 20)
        await driver.close()

    with kind.serve(pour) as server:
        run(body())


def test_a_driver_paused_before_open_reads_a_chunk_at_most(run: Run) -> None:
    total = 8 << 20

    async def body() -> None:
        sink = Recorder()
        driver = TcpDriver(parse_address(server.url), sink)
        driver.pause()
        await driver.open(Deadline(5))
        await some_turns()
        assert len(sink.received) <= 1
        driver.resume()
        assert await sink.wait_lost() is None
        assert len(sink.stream) == total
        await driver.close()

    with SocketServer(say_and_leave(bytes(total))) as server:
        run(body())


def test_a_close_sends_what_was_taken_and_ends_even_if_nobody_reads(run: Run) -> None:
    async def body() -> None:
        driver = await opened(TcpDriver, server.url, Recorder())
        while await driver.send(bytes(200_000), Deadline(SOON)):
            pass
        async with asyncio.timeout(5):
            await driver.close()

    with SocketServer(deaf) as server:
        run(body())


def test_what_the_drivers_declare(run: Run) -> None:
    for driver in (TcpDriver, TlsDriver, UnixDriver):
        assert driver.overflow is Overflow.BACK_PRESSURE
        assert driver.lost_is_none
        assert driver.byte_stream


def test_nobody_listening_is_said_and_may_be_tried_again(run: Run, tmp_path: Path) -> None:
    async def body(url: str, says: str) -> None:
        with pytest.raises(DialError, match=says) as caught:
            await opened(UnixDriver if url.startswith("unix") else TcpDriver, url, Recorder())
        assert not isinstance(caught.value, FatalError)

    with unused_port() as port:
        run(body(f"tcp://127.0.0.1:{port}", "refused the connection; is the server running"))
    run(body(f"unix://{tmp_path}/none", "nobody listens on .*/none; is the server running"))


def test_a_path_that_is_no_socket_is_fatal(run: Run, tmp_path: Path) -> None:
    async def body() -> None:
        with pytest.raises(FatalError, match="cannot be connected to"):
            await opened(UnixDriver, f"unix://{tmp_path}/{'x' * 200}", Recorder())

    run(body())


def test_a_peer_that_never_answers_tls_is_left_at_the_deadline(run: Run) -> None:
    async def body() -> None:
        driver = TlsDriver(parse_address(f"tls://127.0.0.1:{server.port}"), Recorder())
        with pytest.raises(DialTimeout, match=r"no (TLS )?answer from 127\.0\.0\.1"):
            await driver.open(Deadline(SOON))
        await driver.close()

    with SocketServer(deaf) as server:
        run(body())


def test_a_close_during_open_is_allowed(run: Run) -> None:
    async def body() -> None:
        driver = TlsDriver(parse_address(f"tls://127.0.0.1:{server.port}"), Recorder())
        opening = asyncio.create_task(driver.open(Deadline(10)))
        server_side = asyncio.to_thread(server.wait_peers, 1)
        await server_side
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await driver.close()

    with SocketServer(deaf) as server:
        run(body())

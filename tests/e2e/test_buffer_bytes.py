"""What a connection holds for a reader that does not read is bounded by its bytes, too: a chunk of a byte
stream or a frame may be large. `buffer=` alone let a worker hold hundreds of megabytes."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection

from tests.support.certs import Certs
from tests.support.servers import WsServer
from tests.support.sockets import Peer, SocketServer
from tests.support.waiting import until
from trunkline import connect

MIB = 1 << 20
LIMIT = 2 * MIB
TOTAL = 40 * MIB
"""More than the limit and all that the system keeps on the way; less than was held before."""
ONE_READ = MIB
"""What a worker may take at once when it decides to stop."""


class Hose:
    """A peer that sends without a pause until it is not listened to."""

    def __init__(self) -> None:
        self.stuck = threading.Event()
        self.done = threading.Event()
        self.sent = 0

    def __call__(self, peer: Peer) -> None:
        peer.sock.settimeout(3)
        chunk = memoryview(b"x" * (MIB // 4))
        while self.sent < TOTAL:
            try:
                self.sent += peer.sock.send(chunk[: TOTAL - self.sent])
            except (TimeoutError, ssl.SSLError):
                self.stuck.set()
                peer.sock.settimeout(60)
        self.done.set()
        peer.stopping.wait()


def test_a_worker_stops_to_read_a_stream_at_its_limit_of_bytes(
    scheme: str, tmp_path: Path, certs: Certs
) -> None:
    hose = Hose()
    tls = certs.server_context() if scheme == "tls" else None
    path = tmp_path / "hose" if scheme == "unix" else None
    with SocketServer(hose, tls=tls, path=path) as server:
        extra = {"cafile": str(certs.ca)} if scheme == "tls" else {}
        with connect(server.url, buffer_bytes=LIMIT, decode="bytes", **extra) as conn:
            until(lambda: hose.stuck.is_set() or hose.done.is_set(), "the peer to be stopped", 60)
            assert hose.stuck.is_set(), "it could send everything, and nobody has read"
            stats = conn.stats()
            assert stats.bytes_in <= LIMIT + ONE_READ
            assert stats.dropped == 0
            read = 0
            while read < TOTAL:
                chunk = conn.read(30_000)
                assert chunk
                read += len(chunk)
            assert read == TOTAL
            until(lambda: hose.sent == TOTAL, "the peer's own count")


@pytest.fixture(params=["tcp", "tls", "unix"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_feed_of_large_frames_drops_the_oldest_at_the_limit_of_bytes() -> None:
    def feed(ws: ServerConnection) -> None:
        for number in range(100):
            ws.send(f"{number:04d}" + "x" * (MIB // 10))
        for _ in ws:
            pass

    with WsServer(feed) as server, connect(server.url, buffer_bytes=MIB) as conn:
        until(lambda: conn.stats().messages_in == 100, "all frames", 30)
        stats = conn.stats()
        assert stats.buffered * (MIB // 10) <= MIB
        assert stats.buffered + stats.dropped == 100
        numbers = [int(conn.read(5000)[:4]) for _ in range(stats.buffered)]
        assert numbers == list(range(100 - stats.buffered, 100))


def test_a_message_larger_than_the_limit_is_read_all_the_same() -> None:
    def feed(ws: ServerConnection) -> None:
        for mark in "ab":
            ws.send(mark * (2 * MIB))
        for _ in ws:
            pass

    with WsServer(feed) as server, connect(server.url, buffer_bytes=MIB) as conn:
        until(lambda: conn.stats().messages_in == 2, "both", 30)
        assert conn.read(5000) == "b" * (2 * MIB)
        assert conn.stats().dropped == 1

"""The drivers prove themselves: `pip install '.[test]'` in this folder, then `pytest`."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from functools import partial
from io import BufferedReader

import pytest
import trunkline
from trunkline import connect
from trunkline.testing import FaultProxy
from trunkline.testing.contracts import ProxiedPeer, ScriptedPeer, StreamContract, closing


def read_netstring(stream: BufferedReader) -> bytes | None:
    """The next message; None at the end of the stream."""
    size = b""
    while (byte := stream.read(1)) not in (b":", b""):
        size += byte
    return stream.read(int(size) + 1)[:-1] if size else None


class NetstringPeer(ProxiedPeer):
    """A server of netstrings, behind the fault proxy that makes the outages. `greet` begins each link."""

    def __init__(self, greet: Callable[[socket.socket], None] = lambda link: None) -> None:
        self._greet = greet
        self._links: set[socket.socket] = set()
        self._received: list[bytes] = []
        self._news = threading.Condition()
        peer = self

        class Link(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                peer.serve(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Link)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.proxy = FaultProxy(self._server.server_address[1])
        self.address = f"netstring://{self.proxy.address}"
        self.options = {}

    def serve(self, link: socket.socket) -> None:
        """Take the messages of one link to its end."""
        self._note(lambda: self._links.add(link))
        try:
            self._greet(link)
            with link.makefile("rb") as stream:
                while (message := read_netstring(stream)) is not None:
                    self._note(partial(self._received.append, message))
        except OSError:
            pass  # the link was reset
        finally:
            self._note(lambda: self._links.discard(link))

    def _note(self, change: Callable[[], object]) -> None:
        with self._news:
            change()
            self._news.notify_all()

    def send(self, data: str | bytes) -> None:
        payload = data.encode() if isinstance(data, str) else data
        for link in list(self._links):
            link.sendall(b"%d:%b," % (len(payload), payload))

    def received(self) -> bytes:
        return b"".join(self._received)

    def wait_links(self, count: int) -> None:
        with self._news:
            assert self._news.wait_for(lambda: len(self._links) == count, 10), f"{len(self._links)} links"

    def close(self) -> None:
        self.proxy.stop()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class TestNetstring(StreamContract):
    """All that a stream driver must do."""

    drops_oldest = False

    @pytest.fixture
    def peer(self) -> Iterator[ScriptedPeer]:
        yield from closing(NetstringPeer())


def test_netstrings_may_come_in_pieces_and_be_long() -> None:
    with contextlib.closing(NetstringPeer()) as peer, connect(peer.address) as conn:
        peer.wait_links(1)
        peer.proxy.slice(3, "down")
        for message in ("a", "x" * 5_000):
            peer.send(message)
            assert conn.read(10_000) == message


def test_bytes_that_are_no_netstring_end_the_link() -> None:
    def answer_in_http(link: socket.socket) -> None:
        link.sendall(b"HTTP/1.1 400 Bad Request\r\nServer: web\r\n\r\n")

    peer = NetstringPeer(answer_in_http)
    with contextlib.closing(peer), connect(peer.address) as conn:
        with pytest.raises(trunkline.BrokenError):
            conn.read(10_000)
        assert "netstrings" in str(conn.stats().last_error)


def test_echo_gives_back_what_is_written() -> None:
    with connect("echo://desk?greeting=good%20day") as conn:
        assert conn.read(10_000) == "good day"
        assert conn.write("well") == 4
        assert conn.read(10_000) == "well"
        conn.write("bye")
        with pytest.raises(trunkline.BrokenError):
            conn.read(10_000)


def test_notes_are_found_again() -> None:
    with connect("notes:///desk") as conn:
        conn.exec("SET", "price", 64_000)
        assert conn.exec("GET", "price").values == [[64_000]]
        with pytest.raises(trunkline.StatementError, match="notes take SET"):
            conn.exec("DROP")

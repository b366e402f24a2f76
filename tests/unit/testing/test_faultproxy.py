"""The fault proxy does what it says, in every mode, and leaves nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.datagramproxy import DatagramProxy
from tests.support.sockets import SocketServer, say, unused_port
from tests.support.waiting import until
from trunkline.testing.faultproxy import FaultProxy


@pytest.fixture
def server() -> Iterator[SocketServer]:
    with SocketServer() as server:
        yield server


@pytest.fixture
def proxy(server: SocketServer) -> Iterator[FaultProxy]:
    with FaultProxy(server.port) as proxy:
        yield proxy


def dial(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 10)


def ask(sock: socket.socket, data: bytes) -> bytes:
    sock.sendall(data)
    return exactly(sock, len(data))


def exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (piece := sock.recv(count - len(data))):
        data += piece
    return data


def nothing_arrives(sock: socket.socket) -> bool:
    """A short look; the proof that bytes were held back is the proxy's own count."""
    sock.settimeout(0.05)
    try:
        return sock.recv(1) is None
    except TimeoutError:
        return True
    finally:
        sock.settimeout(10)


def test_bytes_pass_both_ways_when_nothing_is_wrong(proxy: FaultProxy) -> None:
    with dial(proxy) as sock:
        sock.sendall(b"x" * 300_000)
        assert exactly(sock, 300_000) == b"x" * 300_000
        assert (proxy.connections, proxy.live) == (1, 1)
        assert proxy.taken("up") == proxy.taken("down") == 300_000


def test_the_end_of_one_side_is_passed_on(proxy: FaultProxy) -> None:
    with dial(proxy) as sock:
        sock.sendall(b"bye")
        sock.shutdown(socket.SHUT_WR)
        assert exactly(sock, 100) == b"bye"
    proxy.wait_live(0)


def test_refuse_refuses_new_connections_until_healed(proxy: FaultProxy) -> None:
    with dial(proxy) as old:
        assert ask(old, b"1") == b"1"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            dial(proxy)
        assert ask(old, b"2") == b"2"
        proxy.heal()
        with dial(proxy) as new:
            assert ask(new, b"3") == b"3"
    assert proxy.connections == 2


def test_deaf_accepts_and_never_answers(proxy: FaultProxy, server: SocketServer) -> None:
    proxy.deaf()
    with dial(proxy) as sock:
        sock.sendall(b"hello?")
        proxy.wait_connections(1)
        assert nothing_arrives(sock)
        proxy.heal()
        assert nothing_arrives(sock)
        assert server.peers == []
    with dial(proxy) as sock:
        assert ask(sock, b"x") == b"x"


def test_cut_ends_in_good_order_even_with_unread_bytes(proxy: FaultProxy) -> None:
    with dial(proxy) as sock:
        assert ask(sock, b"x") == b"x"
        proxy.stall("up")
        sock.sendall(b"y" * 1000)
        proxy.cut()
        assert sock.recv(1) == b""
        assert proxy.live == 0


def test_reset_breaks_the_link(proxy: FaultProxy) -> None:
    with dial(proxy) as sock:
        assert ask(sock, b"x") == b"x"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_blackhole_up_swallows_what_the_client_sends(
    proxy: FaultProxy, server: SocketServer
) -> None:
    with dial(proxy) as sock:
        assert ask(sock, b"a") == b"a"
        proxy.blackhole("up")
        sock.sendall(b"gone")
        proxy.wait_taken("up", 5)
        proxy.heal()
        assert ask(sock, b"b") == b"b"
        assert server.peers[0].received == b"ab"


def test_blackhole_down_swallows_what_the_server_sends(
    proxy: FaultProxy, server: SocketServer
) -> None:
    with dial(proxy) as sock:
        assert ask(sock, b"a") == b"a"
        proxy.blackhole("down")
        sock.sendall(b"lost")
        proxy.wait_taken("down", 5)
        proxy.heal()
        assert ask(sock, b"b") == b"b"
        assert server.peers[0].received == b"alostb"


def test_stall_holds_everything_back_and_loses_nothing(proxy: FaultProxy) -> None:
    with dial(proxy) as sock:
        proxy.stall("down")
        sock.sendall(b"later")
        assert nothing_arrives(sock)
        proxy.heal()
        assert exactly(sock, 5) == b"later"


def test_slow_passes_a_little_at_a_time_and_healing_lets_the_rest_go(proxy: FaultProxy) -> None:
    with dial(proxy) as sock:
        proxy.slow("down", bytes_per_s=20)
        sock.sendall(b"x" * 1000)
        first = sock.recv(1000)
        assert 0 < len(first) < 1000
        proxy.heal()
        assert len(first) + len(exactly(sock, 1000 - len(first))) == 1000


def test_latency_holds_back_until_healed(proxy: FaultProxy) -> None:
    with dial(proxy) as sock:
        proxy.slow(latency_s=3600)
        sock.sendall(b"later")
        proxy.wait_taken("up", 5)
        assert proxy.taken("down") == 0
        proxy.heal()
        assert exactly(sock, 5) == b"later"


def test_slice_passes_all_bytes_in_small_segments(proxy: FaultProxy) -> None:
    proxy.slice(3)
    with dial(proxy) as sock:
        text = bytes(range(256))
        assert ask(sock, text) == text


@pytest.mark.parametrize("limit", [0, 1, 10])
def test_cut_after_passes_so_many_bytes_down_on_each_link(limit: int) -> None:
    with SocketServer(say(b"0123456789abcdef")) as server, FaultProxy(server.port) as proxy:
        proxy.cut_after(limit, "down")
        for _ in range(2):
            with dial(proxy) as sock:
                assert exactly(sock, 100) == b"0123456789abcdef"[:limit]
        proxy.heal()
        with dial(proxy) as sock:
            assert exactly(sock, 16) == b"0123456789abcdef"


def test_cut_after_counts_from_the_call_on_a_link_that_is_there(
    proxy: FaultProxy, server: SocketServer
) -> None:
    with dial(proxy) as sock:
        assert ask(sock, b"abc") == b"abc"
        proxy.cut_after(2, "up")
        sock.sendall(b"defg")
        # The echo of "de" may be lost with the link; that the server got just that is what counts.
        assert exactly(sock, 100) in (b"", b"d", b"de")
    server.wait_received(b"abcde")
    assert server.peers[0].received == b"abcde"


def test_a_server_that_is_not_there_breaks_the_link() -> None:
    with unused_port() as port, FaultProxy(port) as proxy:
        # Dialling is inside: the RST may arrive before `connect` has returned.
        with pytest.raises(ConnectionResetError), dial(proxy) as sock:
            sock.recv(1)
        proxy.wait_connections(1)
        proxy.wait_live(0)


def test_waiting_in_vain_says_what_was_there(proxy: FaultProxy) -> None:
    with pytest.raises(AssertionError, match="no 1 connections"):
        proxy.wait_connections(1, timeout=0.01)


def test_stop_twice_leaves_no_thread_and_no_port(server: SocketServer) -> None:
    proxy = FaultProxy(server.port)
    with dial(proxy) as sock:
        assert ask(sock, b"x") == b"x"
        proxy.stop()
        proxy.stop()
        assert not [t for t in threading.enumerate() if t.name.startswith("faultproxy")]
    with pytest.raises(ConnectionRefusedError):
        dial(proxy)


def test_between_unix_sockets(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "server"))
        listener.listen()
        with FaultProxy(tmp_path / "server", at=tmp_path / "way") as proxy:
            for _ in range(2):
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(10)
                    sock.connect(proxy.address)
                    peer, _ = listener.accept()
                    with peer:
                        sock.sendall(b"up")
                        assert peer.recv(10) == b"up"
                        proxy.cut()
                        assert sock.recv(10) == peer.recv(10) == b""


def test_datagrams() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        proxy = DatagramProxy(server.getsockname()[1])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, contextlib.closing(proxy):
            client.settimeout(10)
            client.connect(("127.0.0.1", proxy.port))
            client.send(b"1")
            data, first = server.recvfrom(10)
            server.sendto(data, first)
            assert client.recv(10) == b"1"
            proxy.blackhole("up")
            client.send(b"swallowed")
            until(lambda: proxy.swallowed == 1, "its end")
            proxy.heal()
            proxy.slow(latency_s=0.01)
            client.send(b"2")
            assert server.recvfrom(10) == (b"2", first)
            proxy.cut()
            client.send(b"3")
            data, second = server.recvfrom(10)
            assert data == b"3"
            assert second != first

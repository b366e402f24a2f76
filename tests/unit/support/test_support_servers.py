"""The test servers behave as their names say: the other tests stand on them."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest
import socks
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.certs import Certs
from tests.support.servers import (
    INVALID_UTF8_FRAME,
    OVERSIZE_FRAME,
    Microsocks,
    WsServer,
    close_with,
    drop_after,
    feed,
    garbage_handshake,
    need_binary,
    raw,
    refuse_with,
)
from tests.support.sockets import Peer, SocketServer, UdpServer, deaf, free_port, unused_port


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


def open_ws(server: WsServer | SocketServer, certs: Certs | None = None) -> ClientConnection:
    scheme = "wss" if certs else "ws"
    context = certs.client_context() if certs else None
    return connect(f"{scheme}://127.0.0.1:{server.port}", ssl=context, proxy=None, open_timeout=10)


class TestSockets:
    def test_tcp_echoes(self) -> None:
        with SocketServer() as server, dial(server.port) as sock:
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"
            server.wait_received(b"hello")

    def test_a_handler_is_the_script_of_a_peer(self) -> None:
        def script(peer: Peer) -> None:
            assert peer.read_until(b"\n") == b"one\n"
            assert peer.read_exactly(3) == b"two"
            peer.send(str(peer.number).encode())
            peer.reset()

        with SocketServer(script) as server:
            for number in (b"0", b"1"):
                with dial(server.port) as sock:
                    sock.sendall(b"one\ntwo")
                    assert sock.recv(1) == number
                    with pytest.raises(ConnectionResetError):
                        sock.recv(1)
            assert len(server.wait_peers(2)) == 2

    def test_a_failing_handler_fails_the_test(self) -> None:
        def wrong(peer: Peer) -> None:
            raise ValueError("the script is wrong")

        server = SocketServer(wrong)
        with dial(server.port) as sock:
            assert sock.recv(1) == b""
        with pytest.raises(ValueError, match="the script is wrong"):
            server.close()

    def test_deaf_reads_nothing_and_closing_frees_it(self) -> None:
        with SocketServer(deaf) as server, dial(server.port) as sock:
            server.wait_peers(1)
            sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                sock.recv(1)

    def test_drop_ends_the_links_and_the_server_goes_on(self) -> None:
        with SocketServer() as server:
            with dial(server.port) as sock:
                server.wait_peers(1)
                server.drop()
                assert sock.recv(1) == b""
            with dial(server.port) as sock:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"

    def test_unix_echoes_and_removes_its_file(self, tmp_path: Path) -> None:
        path = tmp_path / "s"
        with SocketServer(path=path) as server, socket.socket(socket.AF_UNIX) as sock:
            assert server.url == f"unix://{path}"
            sock.connect(str(path))
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        assert not path.exists()

    def test_udp_answers_and_can_speak_first_later(self) -> None:
        with UdpServer(lambda data: [data, data.upper()]) as server:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(10)
                sock.sendto(b"a", ("127.0.0.1", server.port))
                assert [sock.recv(10), sock.recv(10)] == [b"a", b"A"]
                server.send(b"more")
                assert sock.recv(10) == b"more"
            assert server.wait_received(1) == [b"a"]

    def test_an_unused_port_refuses(self) -> None:
        with unused_port() as port, pytest.raises(ConnectionRefusedError):
            dial(port)
        assert 0 < free_port() < 65536

    def test_no_thread_stays(self) -> None:
        before = set(threading.enumerate())
        with SocketServer() as server, dial(server.port):
            server.wait_peers(1)
        assert set(threading.enumerate()) == before


class TestTls:
    def test_the_rightful_server_is_trusted_by_name_and_address(self, certs: Certs) -> None:
        with SocketServer(tls=certs.server_context()) as server:
            for name in ("localhost", "127.0.0.1", "::1"):
                with certs.client_context().wrap_socket(
                    dial(server.port), server_hostname=name
                ) as sock:
                    sock.sendall(b"x")
                    assert sock.recv(1) == b"x"

    @pytest.mark.parametrize(
        ("which", "why"),
        [
            ("wrong_host", "mismatch"),
            ("expired", "expired"),
            ("stranger", "unable to get local issuer"),
        ],
    )
    def test_the_wrong_ones_are_refused(self, certs: Certs, which: str, why: str) -> None:
        with (
            SocketServer(tls=getattr(certs, which).server_context()) as server,
            dial(server.port) as sock,
            pytest.raises(ssl.SSLCertVerificationError, match=why),
        ):
            certs.client_context().wrap_socket(sock, server_hostname="localhost")

    def test_a_server_that_asks_for_a_certificate_gets_ours(self, certs: Certs) -> None:
        def who(peer: Peer) -> None:
            assert isinstance(peer.sock, ssl.SSLSocket)
            peer.send(repr(peer.sock.getpeercert()).encode())

        with SocketServer(who, tls=certs.server_context(ask_client=True)) as server:
            context = certs.client_context(with_cert=True)
            with context.wrap_socket(dial(server.port), server_hostname="localhost") as sock:
                assert b"strategy@trunkline.example" in sock.recv(65536)
            with (
                certs.client_context().wrap_socket(
                    dial(server.port), server_hostname="localhost"
                ) as sock,
                pytest.raises(ssl.SSLError, match="certificate required"),
            ):
                sock.recv(1)


class TestWebSocket:
    def test_it_echoes_text_and_bytes_and_notes_both(self) -> None:
        with WsServer() as server, open_ws(server) as ws:
            for message in ("text", b"bytes"):
                ws.send(message)
                assert ws.recv(10) == message
            assert server.wait_received(2) == ["text", b"bytes"]
            assert server.requests[0].path == "/"

    def test_a_feed_is_numbered(self, certs: Certs) -> None:
        server = WsServer(feed(3, '{{"n": {}}}'), tls=certs.server_context())
        with server, open_ws(server, certs) as ws:
            assert [ws.recv(10) for _ in range(3)] == ['{"n": 0}', '{"n": 1}', '{"n": 2}']

    def test_it_closes_with_a_code(self) -> None:
        with WsServer(close_with(4001, "bye", after=["last"])) as server, open_ws(server) as ws:
            assert ws.recv(10) == "last"
            with pytest.raises(ConnectionClosed, match="4001"):
                ws.recv(10)

    def test_it_drops_without_a_close_frame(self) -> None:
        with WsServer(drop_after("a", "b")) as server, open_ws(server) as ws:
            assert [ws.recv(10), ws.recv(10)] == ["a", "b"]
            with pytest.raises(ConnectionClosed, match="no close frame"):
                ws.recv(10)

    @pytest.mark.parametrize(
        ("frame", "code"), [(INVALID_UTF8_FRAME, 1007), (OVERSIZE_FRAME, 1009)]
    )
    def test_it_sends_broken_frames(self, frame: bytes, code: int) -> None:
        with WsServer(raw(frame)) as server, open_ws(server) as ws:
            with pytest.raises(ConnectionClosed) as caught:
                ws.recv(10)
            assert caught.value.sent is not None
            assert caught.value.sent.code == code

    def test_it_refuses_the_handshake(self) -> None:
        with (
            WsServer(on_request=refuse_with(404)) as server,
            pytest.raises(InvalidStatus, match="404"),
        ):
            open_ws(server)
        assert server.connections == 1

    def test_garbage_answers_the_handshake(self) -> None:
        with SocketServer(garbage_handshake()) as server, pytest.raises(InvalidMessage):
            open_ws(server)

    def test_the_test_can_drive_it(self) -> None:
        with WsServer(feed(0)) as server, open_ws(server) as ws:
            server.wait_live(1)
            server.send_all("news")
            assert ws.recv(10) == "news"
            server.drop_all()
            server.wait_live(0)
            with pytest.raises(ConnectionClosed):
                ws.recv(10)

    def test_it_closes_while_a_client_does_not_read(self) -> None:
        before = set(threading.enumerate())
        with WsServer(feed(100_000, "{}" + "x" * 1000)) as server, dial(server.port) as sock:
            sock.sendall(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            server.wait_live(1)
        assert set(threading.enumerate()) == before

    def test_a_failing_behaviour_fails_the_test(self) -> None:
        server = WsServer(lambda ws: 1 / 0)
        with open_ws(server):
            server.wait_connections(1)
        with pytest.raises(ZeroDivisionError):
            server.close()


class TestSocks:
    @pytest.mark.parametrize("login", [(None, None), ("name", "pwd")])
    def test_it_passes_bytes_with_and_without_a_login(
        self, login: tuple[str | None, str | None]
    ) -> None:
        with Microsocks(*login) as proxy, SocketServer() as server, socks.socksocket() as sock:
            sock.settimeout(10)
            sock.set_proxy(socks.SOCKS5, "127.0.0.1", proxy.port, True, *login)
            sock.connect(("127.0.0.1", server.port))
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"

    def test_it_refuses_a_wrong_password(self) -> None:
        with Microsocks("name", "pwd") as proxy, socks.socksocket() as sock:
            sock.settimeout(10)
            sock.set_proxy(socks.SOCKS5, "127.0.0.1", proxy.port, True, "name", "wrong")
            with pytest.raises(socks.ProxyError, match="authentication failed"):
                sock.connect(("127.0.0.1", 1))

    def test_a_missing_program_fails_and_says_what_to_install(self) -> None:
        with pytest.raises(pytest.fail.Exception, match="apt-get install no-such-server"):
            need_binary("no-such-server")

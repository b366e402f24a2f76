"""A small HTTP CONNECT proxy: basic auth, refusals, and a record of what it was asked for."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading

from tests.support.sockets import Peer, SocketServer

__all__ = ["HttpProxy"]


class HttpProxy:
    """Tunnels `CONNECT host:port`; `answer` replaces the tunnel by a status line."""

    def __init__(self, user: str | None = None, password: str = "", *, answer: str | None = None) -> None:
        self.asked: list[str] = []
        """The targets, as they were written."""
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._wanted = f"Proxy-Authorization: Basic {token}" if user is not None else ""
        self._answer = answer
        self._server = SocketServer(self._serve)
        self.port = self._server.port

    def __enter__(self) -> HttpProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.close()

    def _serve(self, peer: Peer) -> None:
        request = peer.read_until(b"\r\n\r\n").decode()
        host, _, port = request.split()[1].rpartition(":")
        self.asked.append(f"{host}:{port}")
        if self._wanted not in request:
            peer.send(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        elif self._answer:
            peer.send(f"{self._answer}\r\n\r\n".encode())
        else:
            self._tunnel(peer, host.strip("[]"), int(port))

    def _tunnel(self, peer: Peer, host: str, port: int) -> None:
        try:
            upstream = socket.create_connection((host, port), 5)
        except OSError:
            peer.send(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        with upstream:
            upstream.settimeout(None)
            peer.send(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
            back = threading.Thread(target=_pump, args=(upstream, peer.sock), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while data := peer.read():
                    upstream.sendall(data)
            with contextlib.suppress(OSError):
                upstream.shutdown(socket.SHUT_RDWR)
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)

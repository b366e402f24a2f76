"""A small SOCKS4 and SOCKS4a proxy: one user or any, and a record of what it was asked for."""

from __future__ import annotations

import socket
import threading

from tests.support.http_proxy import pump
from tests.support.sockets import Peer, SocketServer

__all__ = ["Socks4Proxy"]


class Socks4Proxy:
    """Connects to what it is asked for; another `user` than the one it wants is refused (code 93)."""

    def __init__(self, user: str | None = None) -> None:
        self.asked: list[str] = []
        """The targets, as they were written: names where SOCKS4a was spoken."""
        self._user = user
        self._server = SocketServer(self._serve)
        self.port = self._server.port

    def __enter__(self) -> Socks4Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.close()

    def _serve(self, peer: Peer) -> None:
        version, command = peer.read_exactly(2)
        assert (version, command) == (4, 1)
        port = int.from_bytes(peer.read_exactly(2), "big")
        address = peer.read_exactly(4)
        user = peer.read_until(b"\0")[:-1].decode()
        host = socket.inet_ntoa(address)
        if address[:3] == bytes(3) and address[3]:
            host = peer.read_until(b"\0")[:-1].decode()
        self.asked.append(f"{host}:{port}")
        if self._user is not None and user != self._user:
            peer.send(bytes((0, 93)) + bytes(6))
            return
        try:
            upstream = socket.create_connection((host, port), 5)
        except OSError:
            peer.send(bytes((0, 91)) + bytes(6))
            return
        with upstream:
            upstream.settimeout(None)
            peer.send(bytes((0, 90)) + bytes(6))
            back = threading.Thread(target=pump, args=(upstream, peer.sock), daemon=True)
            back.start()
            pump(peer.sock, upstream)
            back.join()

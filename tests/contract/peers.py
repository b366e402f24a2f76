"""The peers of the contract for sockets and WebSocket."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.support.certs import Certs
from tests.support.sockets import Peer, SocketServer, UdpServer
from trunkline.testing import Exchange, FaultProxy
from trunkline.testing.contracts import ProxiedPeer, ScriptedPeer

__all__ = ["SocketPeer", "UdpPeer", "UnixPeer", "WebSocketPeer"]


class SocketPeer(ProxiedPeer):
    """tcp and, with certificates, tls: a server behind a fault proxy."""

    def __init__(self, certs: Certs | None = None) -> None:
        self._server = SocketServer(self._take, tls=certs.server_context() if certs else None)
        self.proxy = FaultProxy(self._server.port)
        self._live: set[Peer] = set()
        self._news = threading.Condition()
        scheme = "tls" if certs else "tcp"
        self.address = f"{scheme}://{self.proxy.address}"
        self.options = {"cafile": str(certs.ca)} if certs else {}

    def _take(self, peer: Peer) -> None:
        self._note(peer, here=True)
        try:
            while peer.read():
                pass
        finally:
            self._note(peer, here=False)

    def _note(self, peer: Peer, *, here: bool) -> None:
        with self._news:
            (self._live.add if here else self._live.discard)(peer)
            self._news.notify_all()

    def send(self, data: str | bytes) -> None:
        for peer in list(self._live):
            peer.send(data.encode() if isinstance(data, str) else data)

    def received(self) -> bytes:
        return b"".join(peer.received for peer in self._server.peers)

    def wait_links(self, count: int) -> None:
        with self._news:
            assert self._news.wait_for(lambda: len(self._live) == count, 10), (
                f"{len(self._live)} links"
            )

    def close(self) -> None:
        self.proxy.stop()
        self._server.close()


class UnixPeer(SocketPeer):
    """unix: no proxy there, so the path itself goes away."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "sock"
        self._away = folder / "away"
        self._server = SocketServer(self._take, path=self._path)
        self._live = set()
        self._news = threading.Condition()
        self._deaf = threading.Event()
        self._resumed = threading.Event()
        self.address = self._server.url
        self.options = {}

    def _take(self, peer: Peer) -> None:
        self._note(peer, here=True)
        try:
            while not self._deaf.is_set() and peer.read():
                pass
            peer.stopping.wait() if self._deaf.is_set() else None
        finally:
            self._note(peer, here=False)

    def drop(self) -> None:
        self._server.drop()

    def refuse(self) -> None:
        self._path.rename(self._away)

    def heal(self) -> None:
        self._away.rename(self._path)

    def stop_reading(self) -> None:
        self._deaf.set()
        self.send(b".")  # nothing more is taken after the next bytes

    def close(self) -> None:
        self._server.close()


class UdpPeer(ScriptedPeer):
    """udp: datagrams, and no link to lose."""

    def __init__(self) -> None:
        self._server = UdpServer(lambda data: [])
        self.address = self._server.url
        self.options = {"payload": "hello"}  # a server knows a client by its first datagram

    def send(self, data: str | bytes) -> None:
        self._server.send(data.encode() if isinstance(data, str) else data)

    def received(self) -> bytes:
        return b"".join(self._server.received)[len(b"hello") :]

    def wait_links(self, count: int) -> None:
        self._server.wait_received(count)

    def drop(self) -> None:
        raise AssertionError("udp has no link to lose")

    refuse = heal = stop_reading = drop

    def close(self) -> None:
        self._server.close()


class WebSocketPeer(ProxiedPeer):
    """ws and, with certificates, wss: an exchange behind a fault proxy."""

    def __init__(self, certs: Certs | None = None) -> None:
        self._exchange = Exchange(tls=certs.server_context() if certs else None)
        self.proxy = FaultProxy(self._exchange.port)
        self.address = f"{'wss' if certs else 'ws'}://{self.proxy.address}"
        self.options = {"cafile": str(certs.ca)} if certs else {}

    def send(self, data: str | bytes) -> None:
        self._exchange.say(data)

    def received(self) -> bytes:
        return b"".join(m.encode() if isinstance(m, str) else m for m in self._exchange.written)

    def wait_links(self, count: int) -> None:
        self._exchange.wait_clients(count)

    def close(self) -> None:
        self.proxy.stop()
        self._exchange.stop()

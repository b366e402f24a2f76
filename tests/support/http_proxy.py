"""A small HTTP CONNECT proxy, with or without TLS in front: logins, refusals, and what it was asked for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import threading

from tests.support.sockets import Peer, SocketServer

__all__ = ["HttpProxy", "HttpsProxy", "pump"]


class HttpProxy:
    """Tunnels `CONNECT host:port`; `answer` replaces the tunnel by a status line."""

    def __init__(
        self, user: str | None = None, password: str = "", *, answer: str | None = None
    ) -> None:
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
            back = threading.Thread(target=pump, args=(upstream, peer.sock), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while data := peer.read():
                    upstream.sendall(data)
            with contextlib.suppress(OSError):
                upstream.shutdown(socket.SHUT_RDWR)
            back.join()


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Bytes from one socket to the other until the first one ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class HttpsProxy:
    """Takes TLS off what comes to `port` and gives it to an `HttpProxy`, and the same back."""

    def __init__(self, proxy: HttpProxy, tls: ssl.SSLContext) -> None:
        self.proxy = proxy
        self.port = 0
        self._tls = tls
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._serve()), daemon=True
        )
        self._thread.start()
        assert self._ready.wait(10)

    def __enter__(self) -> HttpsProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._bridge, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _bridge(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        plain_reader, plain_writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        try:
            await asyncio.gather(_copy(reader, plain_writer), _copy(plain_reader, writer))
        except asyncio.CancelledError:
            for end in (writer, plain_writer):
                end.transport.abort()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
    finally:
        sink.close()

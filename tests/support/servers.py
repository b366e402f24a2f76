"""Servers that need more than a socket: WebSocket feeds (the websockets library) and a SOCKS5 proxy.

A WebSocket server runs a *behaviour* in a thread for each connection; behaviours here are makers of
functions of the connection, and a test writes its own where none fits:

    with WsServer(feed(10_000)) as server:
        conn = Dial(server.url)

What is not WebSocket at all (a handshake answered with garbage) is a handler of `sockets.SocketServer`.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from tests.support.sockets import Handler, Peer, free_port
from trunkline.deadline import Deadline

__all__ = [
    "INVALID_UTF8_FRAME",
    "OVERSIZE_FRAME",
    "Behaviour",
    "Microsocks",
    "WsServer",
    "close_with",
    "drop_after",
    "echo_messages",
    "feed",
    "garbage_handshake",
    "hold",
    "need_binary",
    "raw",
    "refuse_with",
]

Behaviour = Callable[[ServerConnection], None]

OVERSIZE_FRAME = struct.pack("!BBQ", 0x82, 127, 1 << 40)
"""The head of a binary frame that announces a terabyte."""
INVALID_UTF8_FRAME = b"\x81\x04ab\xc3\x28"
"""A text frame that is not UTF-8."""


def echo_messages(ws: ServerConnection) -> None:
    """Send every message back as the kind it came."""
    for message in ws:
        ws.send(message)


def hold(ws: ServerConnection) -> None:
    """Take what comes, say nothing, stay until the client leaves."""
    for _ in ws:
        pass


def feed(count: int, template: str = "{}", then: Behaviour = hold) -> Behaviour:
    """Send `count` messages, the template with 0, 1, 2... in it; then go on as `then`."""

    def behave(ws: ServerConnection) -> None:
        for number in range(count):
            ws.send(template.format(number))
        then(ws)

    return behave


def close_with(code: int, reason: str = "", *, after: Iterable[str | bytes] = ()) -> Behaviour:
    """Send the messages, then close with a code."""

    def behave(ws: ServerConnection) -> None:
        for message in after:
            ws.send(message)
        ws.close(code, reason)

    return behave


def drop_after(*messages: str | bytes) -> Behaviour:
    """Send the messages, then lose the link without a close frame (FIN; for RST use a `FaultProxy`)."""

    def behave(ws: ServerConnection) -> None:
        for message in messages:
            ws.send(message)
        _lose(ws)

    return behave


def raw(data: bytes, then: Behaviour = hold) -> Behaviour:
    """Send bytes past the library after the handshake: `INVALID_UTF8_FRAME`, `OVERSIZE_FRAME`, junk."""

    def behave(ws: ServerConnection) -> None:
        ws.socket.sendall(data)
        then(ws)

    return behave


def garbage_handshake(answer: bytes = b"\x00\xff not http at all\r\n\r\n") -> Handler:
    """A `SocketServer` handler that reads the handshake and answers something else."""

    def handler(peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        peer.send(answer)

    return handler


def refuse_with(status: int, body: str = "no") -> Callable[[ServerConnection, Request], Response]:
    """For `WsServer(on_request=...)`: answer every handshake with an HTTP status, such as 404."""
    return lambda ws, request: ws.respond(status, body)


class WsServer:
    """A WebSocket server on `127.0.0.1:<port>`.

    `on_request` may answer a handshake itself (return a Response) or let it pass (None). More keyword
    arguments go to `websockets.sync.server.serve` (`subprotocols`, `compression`, `max_size`, ...).
    """

    def __init__(
        self,
        behaviour: Behaviour = echo_messages,
        *,
        tls: ssl.SSLContext | None = None,
        on_request: Callable[[ServerConnection, Request], Response | None] | None = None,
        **options: Any,
    ) -> None:
        self.behaviour = behaviour
        self.tls = tls
        self.requests: list[Request] = []
        """Every handshake, refused ones included: `.path`, `.headers`."""
        self.received: list[str | bytes] = []
        """Every message, of all connections in the order they came."""
        self.failures: list[BaseException] = []
        self._on_request = on_request
        self._links: set[ServerConnection] = set()
        self._news = threading.Condition()
        self._server = self._serve(options)
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, name=f"ws {self.port}", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """The address a `Dial` takes; the certificates know 127.0.0.1."""
        return f"{'wss' if self.tls else 'ws'}://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many handshakes there were since the start, refused ones included."""
        return len(self.requests)

    @property
    def live(self) -> int:
        return len(self._links)

    def wait_connections(self, count: int, timeout: float = 10.0) -> None:
        self._wait(lambda: len(self.requests) >= count, f"{count} handshakes", timeout)

    def wait_live(self, count: int, timeout: float = 10.0) -> None:
        """Wait until there are exactly `count` open connections."""
        self._wait(lambda: len(self._links) == count, f"{count} open connections", timeout)

    def wait_received(self, count: int, timeout: float = 10.0) -> list[str | bytes]:
        self._wait(lambda: len(self.received) >= count, f"{count} messages", timeout)
        return list(self.received)

    def send_all(self, message: str | bytes) -> None:
        """Send to every open connection, beside what the behaviour does."""
        for ws in list(self._links):
            with contextlib.suppress(ConnectionClosed):
                ws.send(message)

    def drop_all(self) -> None:
        """Lose every link without a close frame; the server goes on."""
        for ws in list(self._links):
            _lose(ws)

    def close(self) -> None:
        """Lose all links, close the port, wait for the threads. Raises what a behaviour raised."""
        self.drop_all()
        self._server.shutdown()
        self._thread.join(10)
        if self.failures:
            raise self.failures[0]

    def __enter__(self) -> WsServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _serve(self, options: dict[str, Any]) -> Server:
        quiet = logging.getLogger("trunkline.tests.ws")
        quiet.setLevel(logging.CRITICAL)
        defaults: dict[str, Any] = {
            "compression": None,
            "ping_interval": None,
            "open_timeout": 5,
            "close_timeout": 1,
            "logger": quiet,
            "create_connection": self._recording(),
        }
        process = self._request
        return serve(
            self._run, "127.0.0.1", 0, ssl=self.tls, process_request=process, **(defaults | options)
        )

    def _recording(self) -> type[ServerConnection]:
        """A connection class that notes each message when its behaviour takes it."""
        outer = self

        class Recording(ServerConnection):
            def recv(self, *args: Any, **kwargs: Any) -> Any:
                message = super().recv(*args, **kwargs)
                outer._note(outer.received, message)
                return message

            def __iter__(self) -> Any:
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        yield self.recv()

        return Recording

    def _request(self, ws: ServerConnection, request: Request) -> Response | None:
        self._note(self.requests, request)
        return self._on_request(ws, request) if self._on_request else None

    def _run(self, ws: ServerConnection) -> None:
        self._turn(self._links.add, ws)
        try:
            self.behaviour(ws)
        except (ConnectionClosed, OSError):
            pass
        except BaseException as error:
            self.failures.append(error)
        finally:
            self._turn(self._links.discard, ws)

    def _note(self, where: list[Any], what: object) -> None:
        self._turn(where.append, what)

    def _turn(self, change: Callable[[Any], None], what: object) -> None:
        with self._news:
            change(what)
            self._news.notify_all()

    def _wait(self, happened: Callable[[], bool], what: str, timeout: float) -> None:
        with self._news:
            if not self._news.wait_for(happened, timeout):
                raise AssertionError(
                    f"no {what} in {timeout} s at {self.url}: {len(self.requests)} handshakes, "
                    f"{len(self._links)} open, {len(self.received)} messages"
                )


def _lose(ws: ServerConnection) -> None:
    """End the TCP link under the WebSocket. The library's own thread closes the descriptor."""
    with contextlib.suppress(OSError):
        ws.socket.shutdown(socket.SHUT_RDWR)


class Microsocks:
    """A SOCKS5 proxy (the `microsocks` program), with a login when `user` is given."""

    def __init__(self, user: str | None = None, password: str | None = None) -> None:
        program = need_binary("microsocks")
        self.port = free_port()
        command = [program, "-i", "127.0.0.1", "-p", str(self.port)]
        if user is not None:
            command += ["-u", user, "-P", password or ""]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._wait_ready(Deadline(10))
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def __enter__(self) -> Microsocks:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _wait_ready(self, deadline: Deadline) -> None:
        # It says nothing when it is ready, so ask.
        while not _answers(self.port):
            if self._process.poll() is not None or deadline.expired():
                raise AssertionError(f"microsocks did not come up on port {self.port}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.01)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def need_binary(name: str) -> str:
    """The path of a server program. Where it is missing the test fails, and says what to install."""
    path = shutil.which(name)
    if path is None:
        pytest.fail(
            f"{name} is not installed: run scripts/setup as root, or apt-get install {name}",
            pytrace=False,
        )
    return path

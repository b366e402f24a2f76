"""A WebSocket server on 127.0.0.1 for `demo` and `doctor`, by the package websockets (the extra
`demo`).

The server has a thread of its own. The handler is a coroutine function, called with every client's
`Peer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.protocol import State

__all__ = ["Handler", "Peer", "WsServer"]

LARGEST = 1 << 20
"""Bytes of the longest message that a client may send."""
START_S = 10.0
"""Seconds that the server has to start."""
LEAVE_S = 3.0
"""Seconds that the end waits for the handlers, after every link was aborted."""

_silent = logging.getLogger("trunkline.demo.wsserver")
"""The package reports every lost handshake with a traceback. The demo loses links on purpose."""
_silent.disabled = True


class Peer:
    """A client as a handler sees it. All methods run on the server's event loop."""

    def __init__(self, link: ServerConnection) -> None:
        self._link = link
        self._pings: set[asyncio.Task[None]] = set()
        self.pongs = 0
        """The number of protocol pings that the client has answered."""

    def send(self, data: str | bytes) -> bool:
        """Hand a message to the transport without waiting; False when the link has gone."""
        if self._link.state is not State.OPEN or self._link.transport.is_closing():
            return False
        broadcast((self._link,), data)
        return True

    def ping(self) -> bool:
        """Send a protocol ping without waiting; False when the link has gone."""
        if self._link.state is not State.OPEN or self._link.transport.is_closing():
            return False
        task = asyncio.get_running_loop().create_task(self._count_pong())
        self._pings.add(task)
        task.add_done_callback(self._pings.discard)
        return True

    async def _count_pong(self) -> None:
        """Wait for a pong and count it."""
        with contextlib.suppress(ConnectionClosed):
            await (await self._link.ping())
            self.pongs += 1

    def abort(self) -> None:
        """Lose the link without a closing handshake. Data that was not sent yet is lost."""
        self._link.transport.abort()

    async def messages(self) -> AsyncIterator[str | bytes]:
        """The client's messages, until the client leaves or the link is lost."""
        with contextlib.suppress(ConnectionClosedError):
            async for message in self._link:
                yield message


Handler = Callable[[Peer], Awaitable[None]]


class WsServer:
    """Serves between `start` and `close`.

    `background` runs beside the connections, on the same loop.
    """

    def __init__(
        self,
        handler: Handler,
        context: ssl.SSLContext | None = None,
        background: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._handler = handler
        self._context = context
        self._background = background
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._ready = threading.Event()
        self.port = 0
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve_until_closed()), name="ws server", daemon=True
        )

    @property
    def url(self) -> str:
        return f"{'wss' if self._context else 'ws'}://127.0.0.1:{self.port}"

    def start(self) -> WsServer:
        """Start the thread and wait until the server listens; OSError when it does not start."""
        self._thread.start()
        if not self._ready.wait(START_S) or not self.port:
            raise OSError("the local WebSocket server did not start")
        return self

    def call(self, function: Callable[[], object]) -> None:
        """Run a function on the server's loop. Callable from any thread; does not wait."""
        if self._loop is not None:
            # The loop may have ended.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function)

    def close(self) -> None:
        """Abort every link and end the thread."""
        if self._ended is not None:
            self.call(self._ended.set)
        self._thread.join(LEAVE_S + 2)

    async def _serve_until_closed(self) -> None:
        """Serve until `close`. The whole life of the thread."""
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = await serve(
                self._serve_client, "127.0.0.1", 0, ssl=self._context, compression=None, max_size=LARGEST,
                ping_interval=None, logger=_silent,
            )  # fmt: skip
            self.port = server.sockets[0].getsockname()[1]
        finally:
            self._ready.set()
        beside = asyncio.create_task(self._run_background())
        await self._ended.wait()
        beside.cancel()
        await asyncio.gather(beside, return_exceptions=True)
        await _abort_links(server)

    async def _run_background(self) -> None:
        if self._background is not None:
            await self._background()

    async def _serve_client(self, link: ServerConnection) -> None:
        await self._handler(Peer(link))


async def _abort_links(server: Server) -> None:
    """End the server without closing handshakes: a suspended client would not answer them."""
    for link in server.connections:
        link.transport.abort()
    server.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(server.wait_closed(), LEAVE_S)

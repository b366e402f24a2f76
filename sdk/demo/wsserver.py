"""A small WebSocket server on 127.0.0.1 for `demo` and `doctor`, so that they need no further package.

It speaks what a well-behaved client needs (RFC 6455 without extensions): handshake, text, binary, ping, pong,
close. It runs in a thread of its own; a handler is a coroutine of one `Peer`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = ["Handler", "Peer", "WsServer"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
LARGEST = 1 << 20
START_S = 10.0


class Peer:
    """One client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.pongs = 0
        """Answers to our protocol pings."""

    def send(self, data: str | bytes) -> bool:
        """Hand one message to the transport; False when the link has gone."""
        if isinstance(data, str):
            return self._frame(_TEXT, data.encode())
        return self._frame(_BINARY, data)

    def ping(self) -> bool:
        return self._frame(_PING, b"demo")

    def abort(self) -> None:
        """Lose the link without a word; what was not sent yet is lost with it."""
        self._writer.transport.abort()

    async def messages(self) -> AsyncIterator[str | bytes]:
        """What the client sends, until it leaves."""
        whole, kind = b"", _TEXT
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, ValueError):
            while True:
                final, code, data = await self._read_frame()
                if code == _CLOSE:
                    self._frame(_CLOSE, data[:2])
                    return
                if code == _PING:
                    self._frame(_PONG, data)
                elif code == _PONG:
                    self.pongs += 1
                else:
                    whole, kind = (whole + data, kind) if code == _CONTINUATION else (data, code)
                    if final:
                        yield whole.decode() if kind == _TEXT else whole

    async def handshake(self) -> bool:
        """Answer the request to upgrade; False (and an answer) when it is none."""
        request = await self._reader.readuntil(b"\r\n\r\n")
        fields = (line.partition(b":") for line in request.split(b"\r\n")[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        key = headers.get(b"sec-websocket-key")
        if key is None:
            self._writer.write(
                b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"
            )
            return False
        accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        lines = (b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade",
                 b"Sec-WebSocket-Accept: " + accept, b"", b"")  # fmt: skip
        self._writer.write(b"\r\n".join(lines))
        return True

    def _frame(self, code: int, data: bytes) -> bool:
        if self._writer.is_closing():
            return False
        size = len(data)
        if size < 126:
            head = struct.pack("!BB", 0x80 | code, size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", 0x80 | code, 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | code, 127, size)
        self._writer.write(head + data)
        return True

    async def _read_frame(self) -> tuple[bool, int, bytes]:
        first, second = await self._reader.readexactly(2)
        size = second & 0x7F
        if size > 125:
            layout = "!H" if size == 126 else "!Q"
            (size,) = struct.unpack(layout, await self._reader.readexactly(struct.calcsize(layout)))
        if size > LARGEST or not second & 0x80:
            raise ValueError("a frame that is too large, or not masked")
        mask = await self._reader.readexactly(4)
        data = await self._reader.readexactly(size)
        number = int.from_bytes(data) ^ int.from_bytes((mask * (size // 4 + 1))[:size])
        return bool(first & 0x80), first & 0x0F, number.to_bytes(size)


Handler = Callable[[Peer], Awaitable[None]]


class WsServer:
    """Serves between `start` and `close`; `background` runs beside the connections, on the same loop."""

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
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main()), name="ws server", daemon=True
        )

    @property
    def url(self) -> str:
        return f"{'wss' if self._context else 'ws'}://127.0.0.1:{self.port}"

    def start(self) -> WsServer:
        self._thread.start()
        if not self._ready.wait(START_S) or not self.port:
            raise OSError("the local WebSocket server did not start")
        return self

    def call(self, function: Callable[[], object]) -> None:
        """Run a function on the server's loop."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(function)

    def close(self) -> None:
        """Drop everybody and end the thread."""
        if self._ended is not None:
            self.call(self._ended.set)
        self._thread.join(5)

    def _work(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
            self.port = server.sockets[0].getsockname()[1]
        finally:
            self._ready.set()
        beside = asyncio.create_task(self._beside())
        await self._ended.wait()
        server.close()
        for task in (beside, *self._tasks):
            task.cancel()
        await asyncio.gather(beside, *self._tasks, return_exceptions=True)

    async def _beside(self) -> None:
        if self._background is not None:
            await self._background()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer)
        try:
            if await peer.handshake():
                await self._handler(peer)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError, OSError):
            pass  # the client left, or we end
        finally:
            self._tasks.discard(task)
            writer.close()

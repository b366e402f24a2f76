"""The opening handshake of the picows engine: the protocol of the transport until the answer is
complete.

picows writes the request. Its own reader refuses valid answers (a `Connection` list, 16 KB of
headers, an informational answer first). So the answer is read here as HTTP, and picows then gets a
plain answer with the same meaning.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol, cast

from trunkline.actors.drivers.ws.handshake import accept_for, ended_early, no_websocket
from trunkline.actors.drivers.ws.request import Target
from trunkline.actors.net.http_answer import (
    MAX_BODY,
    Answer,
    AnswerReader,
    Malformed,
    body_is_complete,
)

__all__ = ["Opening"]

_BUFFER = 64 * 1024


class _Engine(Protocol):
    """The methods of picows' `WSProtocol` that are used here.

    It reads the bytes behind the handshake.
    """

    def get_buffer(self, size: int) -> memoryview: ...
    def buffer_updated(self, count: int) -> None: ...
    def connection_lost(self, error: Exception | None) -> None: ...


class Opening(asyncio.BufferedProtocol):
    """Reads the answer to a handshake.

    It is a buffered protocol like picows' own, which follows on the transport.
    """

    def __init__(self, target: Target) -> None:
        self.transport: asyncio.Transport | None = None
        self._target = target
        self._reader = AnswerReader()
        self._buffer = bytearray(_BUFFER)
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._body = b""
        self._news = asyncio.Event()
        """Set when more of the body has come, and when the connection has ended."""
        self._ended = False
        self._error: Exception | None = None

    async def answer(self) -> Answer:
        """Wait for the final answer. Reading stops behind it. DialError says what came instead."""
        return await self._answer

    async def body(self, answer: Answer, limit_s: float) -> bytes:
        """Return the part of a refusal's body that comes within `limit_s` seconds."""
        self._body = answer.rest
        self._read_on()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not body_is_complete(answer, self._body) and not self._ended:
                    self._news.clear()
                    await self._news.wait()
        return self._body

    def hand_over(self, engine: _Engine, key: str, rest: bytes) -> None:
        """Give the transport to `engine`: the handshake with `key` has succeeded.

        `rest`: bytes read behind the answer.
        """
        assert self.transport is not None
        self.transport.set_protocol(cast(asyncio.BaseProtocol, engine))
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Accept: {accept_for(key)}", "", ""]
        _pour("\r\n".join(lines).encode() + rest, engine)
        if self._ended:
            engine.connection_lost(self._error)
        else:
            self._read_on()

    # Reports of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transport is only similar

    def get_buffer(self, sizehint: int) -> memoryview:
        # A view, because asyncio's TLS fills a slice of it. A slice of a bytearray would be a copy.
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        """Read the answer; behind its head, keep the bytes of a body."""
        data = bytes(memoryview(self._buffer)[:nbytes])
        if self._answer.done():
            self._body = (self._body + data)[:MAX_BODY]
            self._news.set()
            return
        try:
            found = self._reader.feed(data)
        except Malformed as error:
            self._fail(no_websocket(self._target, error))
        else:
            if found is not None:
                self._stop_reading()
                self._answer.set_result(found)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of the connection, and wake the tasks that wait for the answer or the
        body.
        """
        self._ended, self._error = True, exc
        self._news.set()
        self._fail(ended_early(self._target, begun=self._reader.begun, error=exc))

    def _fail(self, error: Exception) -> None:
        """Give the error to the waiting task, unless the answer is there already."""
        if not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()  # marks it as seen: no caller may wait for it yet

    def _stop_reading(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def _read_on(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()


def _pour(data: bytes, engine: Any) -> None:
    """Give bytes to a buffered protocol, as a transport would."""
    rest = memoryview(data)
    while rest:
        buffer = engine.get_buffer(-1)
        count = min(len(buffer), len(rest))
        buffer[:count] = rest[:count]
        engine.buffer_updated(count)
        rest = rest[count:]

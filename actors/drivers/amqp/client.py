"""pika's I/O on the worker's own event loop, over a socket that is connected already (proxy,
local_ip, TLS).

pika has an interface for that: `AbstractIOServices`, which its `AsyncioConnection` takes instead of
an event loop. pika's own implementation opens sockets itself, and does not say how much has not
been sent yet.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from pika.adapters.utils.nbio_interface import AbstractIOServices, AbstractStreamTransport

from trunkline.actors.driver import FatalError
from trunkline.actors.net import tls_alerts
from trunkline.errors import DialError

__all__ = ["Services", "Stream", "ask", "fail", "open_channel", "resolve"]

_FED = 8192
"""Bytes that pika gets at a time. pika copies the rest of the input for each frame, so small pieces
are cheaper.
"""
_OTHERS = (
    (b"AMQP", "speaks another version of AMQP; 0-9-1 is needed"),
    (b"\x15\x03", "speaks TLS; use amqps://"),
    (b"HTTP/", "is an HTTP server; check the port"),
    (b"SSH-", "is an SSH server; check the port"),
)
_METHOD_FRAME = 1


class Stream(asyncio.Protocol, AbstractStreamTransport):  # type: ignore[misc]
    """The connected socket: a protocol for asyncio, a transport for pika."""

    def __init__(
        self, peer: str, taken: Callable[[], None], changed: Callable[[], None], *, hint: str = ""
    ) -> None:
        """Make a stream that is not connected yet.

        `taken`: called after data were read. `changed`: called when the socket takes more data, or
        no more. `hint`: added to the error text when the connection ends before any AMQP.
        """
        self.peer = peer
        self._hint = hint
        self.error: Exception | None = None
        """Why the connection has ended; None for an open link."""
        self.writable = True
        self.written = 0
        self.heard_at = 0.0
        """When bytes last came in, by the event loop's clock."""
        self.consuming = False
        """Whether messages may come."""
        self.leaving = False
        """Whether an orderly end has begun."""
        self.gone = asyncio.Event()
        self._taken, self._changed = taken, changed
        self._greeted = self._ended_by_pika = False
        self._transport: asyncio.Transport | None = None
        self._protocol: Any = None
        self._loop = asyncio.get_running_loop()

    def cut(self, error: Exception) -> None:
        """End at once. Bytes that were not sent yet are lost."""
        self.error = self.error or error
        if self._transport is not None:
            self._transport.abort()

    def attach(self, protocol: Any) -> None:
        """Start pika's protocol on this stream."""
        self._protocol = protocol
        protocol.connection_made(self)

    # methods that asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transport is only similar
        self.heard_at = self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Give pika the bytes in small pieces. Bytes that pika cannot read end the link."""
        self.heard_at = self._loop.time()
        try:
            if not self._greeted:
                self._check_greeting(data)
            for at in range(0, len(data), _FED):
                if self.error is None:
                    self._protocol.data_received(data[at : at + _FED])
        except FatalError as error:
            self.cut(error)
        except Exception as error:
            what = f"{self.peer} sent what pika cannot read ({error or type(error).__name__})"
            # The broker would send the message again on every link. Before any message the peer is
            # not RabbitMQ.
            cure = "is it an AMQP 0-9-1 broker? Check the port"
            if self.consuming:
                cure = "if that is a message's header, another client has to take it from the queue"
            self.cut(ConnectionError(f"{what}; {cure}"))
        self._taken()

    def _check_greeting(self, data: bytes) -> None:
        """Raise FatalError when the first bytes come from a server of another protocol."""
        for beginning, what in _OTHERS:
            if data.startswith(beginning):
                raise FatalError(f"{self.peer} {what}")
        if data[0] != _METHOD_FRAME:
            raise FatalError(f"{self.peer} does not speak AMQP; check the port")
        self._greeted = True

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note why the connection has ended, tell pika, and wake `AmqpDriver.close`."""
        if self.error is None:
            self.error = self._ending(exc)
        if self._protocol is not None:
            self._protocol.connection_lost(None if self._ended_by_pika else self.error)
        self.gone.set()

    def _ending(self, exc: Exception | None) -> Exception:
        """Return the error for users of a connection that the broker has ended."""
        alert = tls_alerts.in_words(exc)
        if alert is not None:
            return FatalError(f"{self.peer} {alert}")
        if not self._greeted:
            return DialError(
                f"{self.peer} closed the connection before any AMQP; check the port and the scheme"
                f"{self._hint}"
            )
        return ConnectionError(f"{self.peer} closed the connection{f': {exc}' if exc else ''}")

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._changed()

    # methods that pika calls

    def write(self, data: bytes) -> None:
        """Send bytes and count them; `Writer` compares the count with the size of the socket's
        buffer.
        """
        if self._transport is not None and self.error is None:
            self.written += len(data)
            self._transport.write(data)

    def abort(self) -> None:
        """End the connection at pika's wish: gently where the end is an orderly one."""
        self._ended_by_pika = self.error is None
        if self.leaving and self._transport is not None:
            self._transport.close()  # TLS sends close_notify, which RabbitMQ may need
        else:
            self.cut(ConnectionError("the link was ended"))

    def get_protocol(self) -> Any:
        return self._protocol

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0


class Services(AbstractIOServices):  # type: ignore[misc]
    """The event loop for pika. Each connection that pika asks for is the stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._loop = asyncio.get_running_loop()

    def get_native_ioloop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def close(self) -> None:
        """Do nothing: the event loop belongs to the worker."""

    run = stop = close

    def add_callback_threadsafe(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(callback)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        return self._loop.call_later(delay, callback)

    def getaddrinfo(self, host: str, port: int, on_done: Callable[..., None], **hints: Any) -> Any:
        nowhere = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 0))
        return self._loop.call_soon(on_done, [nowhere])

    def connect_socket(
        self, sock: socket.socket, address: Any, on_done: Callable[..., None]
    ) -> Any:
        """Report success to pika: the stream has its connected socket already."""
        return self._loop.call_soon(on_done, None)

    def create_streaming_connection(
        self,
        protocol_factory: Callable[[], Any],
        sock: socket.socket,
        on_done: Callable[..., None],
        ssl_context: Any = None,
        server_hostname: str | None = None,
    ) -> Any:
        sock.close()  # pika's own socket, which was never connected
        return self._loop.call_soon(self._attach, protocol_factory, on_done)

    def _attach(self, protocol_factory: Callable[[], Any], on_done: Callable[..., None]) -> None:
        """Join the stream and pika's protocol, or report why the stream has ended meanwhile."""
        if self._stream.error is not None:
            on_done(self._stream.error)
            return
        protocol = protocol_factory()
        self._stream.attach(protocol)
        on_done((self._stream, protocol))


async def ask(method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a method of a pika channel, and return the method of the broker's answer.

    Raises the reason when the channel closes instead: ChannelClosedByBroker, with code and text,
    where the broker has refused.
    """
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    channel: Any = getattr(method, "__self__")  # noqa: B009  (no such name, says mypy)
    channel.add_on_close_callback(lambda closed, reason: fail(answer, reason))
    method(*arguments, callback=lambda frame: resolve(answer, frame.method), **options)
    return await answer


async def open_channel(connection: Any) -> Any:
    """Return a new channel of a pika connection, ready for use."""
    opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    channel = connection.channel(on_open_callback=lambda ready: resolve(opened, ready))
    channel.add_on_close_callback(lambda closed, reason: fail(opened, reason))
    return await opened


def resolve(future: asyncio.Future[Any], value: Any = None) -> None:
    """Set the result of a future, unless it is done already."""
    if not future.done():
        future.set_result(value)


def fail(future: asyncio.Future[Any], error: BaseException) -> None:
    """Set the exception of a future, unless it is done already."""
    if not future.done():
        future.set_exception(error)

"""The socket under nats-py's client, behind nats-py's own `Transport` interface.

Trunkline's dialer opens the socket and Trunkline's TLS options secure it. So `proxy=`, `local_ip=`,
`cafile=` and so on mean the same as for other schemes, and fail in the same words. The transport
also keeps two promises that nats-py's own does not. With tls+nats no byte is sent in the clear,
whatever the server asks for. Closing ends within a second, even when the server takes no more
bytes.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

from nats.aio.transport import Transport

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.nats.incoming import Incoming
from trunkline.actors.net import dialer, tls, tls_alerts
from trunkline.actors.net.liveness import Traffic
from trunkline.actors.net.socket_traffic import socket_traffic
from trunkline.address import Address
from trunkline.address.host import join_host_port
from trunkline.deadline import Deadline

__all__ = ["LinkTransport"]

_HIGH_WATER = 64 * 1024
_CLOSE_S = 0.5


class LinkTransport(Transport, asyncio.Protocol):
    """One connection to one server.

    asyncio calls the protocol methods, and nats-py's reading and writing tasks call the transport
    methods, on the same event loop.
    """

    def __init__(self, address: Address, host: str, port: int, deadline: Deadline) -> None:
        self._address, self._host, self._port, self._deadline = address, host, port, deadline
        self._transport: asyncio.Transport | None = None
        self._incoming = Incoming()
        self._writable = asyncio.Event()
        self._ended = asyncio.Event()
        self._said_end = False
        """Whether the driver has sent its end of the connection to the server."""
        self._sent = 0
        self._looks_while_full = 0
        self._sock: socket.socket | None = None
        self._users: set[asyncio.Task[Any]] = set()
        self.ended: Callable[[], None] | None = None
        """Callback for the end of nats-py's reading or writing task."""
        self.secure = False
        """Whether TLS is on."""
        self.orderly = False
        """Whether the connection is closed because the program wants it."""
        self.failure: BaseException | None = None
        """Why there is no connection, or not any more; with words for users where there are any."""

    @property
    def peer(self) -> str:
        return join_host_port(self._host, self._port)

    @property
    def writable(self) -> bool:
        """Whether the next write goes to the network at once, and does not wait in this process."""
        return self._writable.is_set() and not self._incoming.has_ended

    @property
    def unsent(self) -> int:
        """How many bytes wait in this process for the network."""
        gone = self._transport is None or self._transport.is_closing()
        return 0 if gone or self._transport is None else self._transport.get_write_buffer_size()

    def traffic(self) -> Traffic:
        """The figures of `StreamDriver.traffic`."""
        unsent = self.unsent
        gone = self._transport is None or self._transport.is_closing() or self._sock is None
        fd = -1 if gone or self._sock is None else self._sock.fileno()
        found = socket_traffic(fd, unsent, Traffic(self._incoming.count, self._sent, unsent))
        # While the queue is full, the socket is not read, so silence says nothing about the server.
        # Each look then counts as a received byte.
        self._looks_while_full += self._incoming.is_full
        return found._replace(received=found.received + self._looks_while_full)

    @property
    def silent(self) -> bool:
        """Whether the other side ended the connection without sending a byte."""
        return self._incoming.has_ended and not self._incoming.count

    def abort(self) -> None:
        """Close at once. Bytes that were not sent yet are lost."""
        if self._transport is not None:
            self._transport.abort()

    # methods that nats-py calls

    def __bool__(self) -> bool:
        return True

    async def connect(self, uri: Any, buffer_size: int, connect_timeout: int) -> None:
        """Open the socket by Trunkline's dialer; the arguments of nats-py are ignored."""
        if self.failure is not None:  # nats-py tries twice
            raise self.failure
        try:
            sock = self._sock = await dialer.open_connection(
                self._address, self._deadline, host=self._host, port=self._port
            )
            try:
                await asyncio.get_running_loop().create_connection(lambda: self, sock=sock)
            except BaseException:
                sock.close()
                raise
        except Exception as error:
            self.failure = error
            raise

    async def connect_tls(
        self, uri: Any, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        """Start TLS on the open connection, by the address's options; `ssl_context` is ignored."""
        assert self._transport is not None
        context = await dialer.run_in_thread(lambda: tls.client_context(self._address))
        try:
            secure = await asyncio.get_running_loop().start_tls(
                self._transport,
                self,
                context,
                server_hostname=tls.server_hostname(self._address, self._host),
                # Longer than the caller's own limit, whose error is the clearer report.
                ssl_handshake_timeout=1 + (self._deadline.timeout() or 60.0),
            )
        except OSError as error:
            raise tls.explain(error, self._host, self._port) from None
        if secure is None:  # the connection ended during the handshake
            raise tls.explain(ConnectionResetError(), self._host, self._port)
        self.secure = True
        self.connection_made(secure)

    def write(self, payload: bytes) -> None:
        """Send bytes; FatalError where the address asks for TLS and the server does not."""
        if self._address.tls and not self.secure:
            raise FatalError(
                f"{self.peer} does not ask for TLS; use nats:// if that is what you want"
            )
        if self._transport is not None and not self._transport.is_closing():
            self._sent += len(payload)
            self._transport.write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        self._know_user()
        self.write(b"".join(payload))

    async def drain(self) -> None:
        """Wait until the bytes written so far are on their way, or the link has ended."""
        await self._writable.wait()

    async def read(self, buffer_size: int) -> bytes:
        """Wait for bytes, and read from the socket again where reading had stopped."""
        self._know_user()
        data = await self._incoming.read()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        return data

    async def readline(self) -> bytes:
        """Return a line. The line is incomplete when it gets too long or the link ends."""
        return await self._incoming.readline()

    def at_eof(self) -> bool:
        return self._incoming.is_at_end

    def close(self) -> None:
        """End the connection.

        In good order the transport only says that nothing more is sent, and reads on until the
        server has ended, too. A socket that is closed with unread bytes is reset, and a reset
        throws away the bytes sent last. nats-server processes everything before the end, and then
        ends the connection itself.
        """
        if self._transport is None or self._transport.is_closing():
            return
        if self.orderly and self._transport.can_write_eof():
            self._said_end = True
            self._incoming.clear()
            self._transport.resume_reading()
            self._transport.write_eof()
        else:
            self._transport.close()  # TLS sends its own end and waits for the answer

    async def wait_closed(self) -> None:
        """Wait for the end of the connection, and force it after half a second."""
        if self._transport is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._ended.wait()
        except TimeoutError:
            pass
        finally:
            self.abort()

    def _know_user(self) -> None:
        """Watch the calling task, in order to notice its end.

        nats-py reads in one task and writes in a second, and does not notice when a task is gone.
        """
        task = asyncio.current_task()
        if task is not None and task not in self._users:
            self._users.add(task)
            task.add_done_callback(self._user_ended)

    def _user_ended(self, task: asyncio.Task[Any]) -> None:
        self._users.discard(task)
        if self.ended is not None:
            self.ended()

    # methods that the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is only similar
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Queue the bytes, and stop reading the socket while the queue is full."""
        if self._said_end:
            self._incoming.count += len(data)
            return
        self._incoming.add(data)
        if self._incoming.is_full and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._end(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        self._ended.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _end(self, exc: Exception | None) -> None:
        """Note the end of the connection, and wake the tasks that wait."""
        self.failure = self.failure or _in_words(exc, self.peer)
        self._incoming.end()
        self._writable.set()  # a waiting writer goes on, and finds that the link is over


def _in_words(error: Exception | None, peer: str) -> BaseException | None:
    """Return a FatalError in words for a TLS alert.

    A different error is returned unchanged.
    """
    alert = tls_alerts.in_words(error)
    if alert is not None:
        return FatalError(f"{peer} {alert}")
    return error

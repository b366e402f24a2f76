"""Plain sockets: tcp, tls and unix, which carry streams of bytes.

The module `udp` has datagrams.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from abc import abstractmethod
from typing import ClassVar, cast

from trunkline.actors.driver import Ending, FatalError, Overflow, Sink, StreamDriver
from trunkline.actors.drivers.sock.udp import UdpDriver
from trunkline.actors.net import dialer, tls
from trunkline.actors.net.liveness import Traffic
from trunkline.actors.net.socket_traffic import socket_traffic
from trunkline.address import Address
from trunkline.deadline import Deadline
from trunkline.errors import DialError

__all__ = ["TcpDriver", "TlsDriver", "UdpDriver", "UnixDriver"]

_HIGH_WATER = 64 * 1024
"""A write waits while more bytes than that are queued in the transport."""
_CHUNK = 256 * 1024
"""The most bytes of one piece. Pieces make the count of bytes taken at a deadline a true one."""
_CLOSE_S = 1.0
"""Seconds for the peer to end the connection, too, before it is broken off."""


class _ByteStream(StreamDriver, asyncio.Protocol):
    """The common part of tcp, tls and unix.

    One chunk of bytes that was read is one message, and a full buffer is back pressure on the peer.
    asyncio calls the protocol methods on the event loop, where all else runs, too.
    """

    overflow: ClassVar[Overflow] = Overflow.BACK_PRESSURE
    lost_is_none: ClassVar[bool] = True
    byte_stream: ClassVar[bool] = True

    def __init__(self, address: Address, sink: Sink) -> None:
        super().__init__(address, sink)
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        """Set while the transport takes bytes, and at the end of the link to wake writers."""
        self._turn = asyncio.Lock()
        """Held by a write that goes out in pieces."""
        self._ended = asyncio.Event()
        """Set when the transport has closed the socket."""
        self._over = False
        """Whether the link has ended, or is being closed here."""
        self._opened = False
        """Whether `open` has succeeded. Only then a loss is reported to the sink at once."""
        self._early: list[BaseException | None] = []
        """Losses before the end of opening, for `open` to report."""
        self._reading = True
        """Whether the socket is read; False between `pause` and `resume`."""
        self._received = self._sent = 0
        self._sock: socket.socket | None = None

    async def open(self, deadline: Deadline) -> None:
        """Connect. A loss that came before the end of opening is reported after it."""
        await self._link(deadline)
        self._opened = True
        for reason in self._early:
            asyncio.get_running_loop().call_soon(self.sink.lost, reason)

    @abstractmethod
    async def _link(self, deadline: Deadline) -> None:
        """Connect, and make this object the protocol of the transport."""

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        """Write to the socket; return how many bytes were taken by the deadline.

        A small write goes to the transport at once. A write that must wait takes a turn, so pieces
        of two writes are never mixed.
        """
        payload = data.encode() if isinstance(data, str) else data
        if len(payload) <= _CHUNK and self._writable.is_set() and not self._turn.locked():
            self._living().write(payload)
            self._sent += len(payload)
            return len(payload)
        taken = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline.timeout()), self._turn:
                for start in range(0, len(payload), _CHUNK):
                    await self._writable.wait()
                    chunk = payload[start : start + _CHUNK]
                    self._living().write(chunk)
                    self._sent += len(chunk)
                    taken += len(chunk)
        return taken

    def would_wait(self, size: int) -> bool:
        return size > _CHUNK or not self._writable.is_set() or self._turn.locked()

    def traffic(self) -> Traffic:
        """Return the kernel's figures for the socket, or own counts where the kernel has none."""
        gone = self._transport is None or self._transport.is_closing()
        unsent = 0 if gone or self._transport is None else self._transport.get_write_buffer_size()
        fd = -1 if gone or self._sock is None else self._sock.fileno()
        return socket_traffic(fd, unsent, Traffic(self._received, self._sent, unsent))

    async def close(self) -> None:
        await self.end(Ending.CLOSED)

    async def end(self, ending: Ending) -> None:
        """Close the connection.

        First the driver says that it sends nothing more. Then it reads on until the peer has ended,
        too, at most `_CLOSE_S` seconds. A socket that is closed with unread bytes is reset, and a
        reset makes the peer throw away bytes that it has not read yet. A link that counts as lost
        is broken off at once.
        """
        lost = self._over or not self._opened or ending is Ending.LOST
        self._over = True
        if self._transport is None:
            return
        try:
            if not lost:
                self._say_end(self._transport)
                async with asyncio.timeout(_CLOSE_S):
                    await self._ended.wait()
        except TimeoutError:
            pass
        finally:
            self._transport.abort()  # no effect after an end; needed when cancelled

    def _say_end(self, transport: asyncio.Transport) -> None:
        """Say that nothing more is sent. Bytes written before go out first."""
        if transport.is_closing():
            return
        self.resume()
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()  # TLS sends its own end and waits for the answer

    def pause(self) -> None:
        """Stop reading: back pressure on the peer."""
        self._reading = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        self._reading = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport. A pause that was asked for before is made up for."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transport is only similar
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._writable.set()
        if not self._reading:
            # Delayed, because uvloop starts to read after this method, whatever the method has
            # asked for.
            asyncio.get_running_loop().call_soon(self.pause)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if not self._over:
            self.sink.message(data)

    def eof_received(self) -> bool:
        """Handle the end of the peer's bytes."""
        if self._over:
            return False  # this side has ended already: queued bytes go out
        # A half-closed link counts as closed. Bytes that are still queued for the peer are given
        # up.
        self._lost(None)
        if self._transport is not None:
            self._transport.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(None if isinstance(exc, ssl.SSLEOFError) else exc)
        self._ended.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _living(self) -> asyncio.Transport:
        """Return the transport; ConnectionError where the link is over."""
        if self._over or self._transport is None or self._transport.is_closing():
            raise ConnectionError("the link is gone")
        return self._transport

    def _lost(self, reason: BaseException | None) -> None:
        """Report the end of the link, once."""
        self._writable.set()  # senders wake up and find the link over
        if self._over:
            return
        self._over = True
        if self._opened:
            self.sink.lost(reason)
        else:
            self._early.append(reason)  # `open` reports it: no link was open before


class TcpDriver(_ByteStream):
    """A `tcp://host:port` link."""

    schemes: ClassVar[tuple[str, ...]] = ("tcp",)

    async def _link(self, deadline: Deadline) -> None:
        sock = self._sock = await dialer.open_connection(self.address, deadline)
        await asyncio.get_running_loop().create_connection(lambda: self, sock=sock)


class TlsDriver(_ByteStream):
    """A `tls://host:port` link."""

    schemes: ClassVar[tuple[str, ...]] = ("tls",)

    async def _link(self, deadline: Deadline) -> None:
        """Connect and make the TLS handshake. A thread makes the context, because that reads
        files.
        """
        context = await dialer.run_in_thread(lambda: tls.client_context(self.address))
        sock = self._sock = await dialer.open_connection(self.address, deadline)
        host, port = self.address.host or "", self.address.port or 0
        try:
            async with dialer.within(
                deadline, f"no TLS answer from {self.peer} (does this port serve TLS?)"
            ):
                await asyncio.get_running_loop().create_connection(
                    lambda: self,
                    sock=sock,
                    ssl=context,
                    server_hostname=tls.server_hostname(self.address),
                    # Longer than the caller's own limit, whose error is the clearer report.
                    ssl_handshake_timeout=1 + (deadline.timeout() or 60.0),
                )
        except (DialError, asyncio.CancelledError):
            sock.close()
            raise
        except OSError as error:
            sock.close()
            raise tls.explain(error, host, port) from None


class UnixDriver(_ByteStream):
    """A link to `unix:///path` or `unix://path`.

    `unix://@name` is in Linux's abstract namespace.
    """

    schemes: ClassVar[tuple[str, ...]] = ("unix",)

    @property
    def peer(self) -> str:
        return str(self.address.path)

    async def _link(self, deadline: Deadline) -> None:
        """Connect to the path, or to a name in the abstract namespace."""
        path = str(self.address.path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            async with dialer.within(deadline, f"{path} did not accept the connection"):
                await loop.sock_connect(sock, "\0" + path[1:] if path.startswith("@") else path)
                await loop.create_unix_connection(lambda: self, sock=sock)
        except DialError:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            raise _unix_failure(error, path) from None
        except BaseException:
            sock.close()
            raise


def _unix_failure(error: OSError, path: str) -> DialError:
    """Return why a unix socket cannot be connected; DialError where the server may still start."""
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return DialError(f"nobody listens on {path}; is the server running?", code=error.errno)
    if error.errno in (errno.EACCES, errno.EPERM):
        return FatalError(f"no permission to connect to {path}", code=error.errno)
    return FatalError(f"{path} cannot be connected to: {error.strerror or error}", code=error.errno)

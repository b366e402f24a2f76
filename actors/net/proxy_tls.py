"""TLS to a proxy (`proxy=https://...`), behind an ordinary socket for the driver.

Every driver needs a connected socket: some drivers read the socket in a thread, some wrap it into
TLS of their own. So the driver gets one end of a pair of sockets. A task on the event loop, the
carrier, copies bytes between the other end and the TLS connection to the proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from typing import TYPE_CHECKING

from trunkline.actors.driver import FatalError
from trunkline.actors.net import tls
from trunkline.actors.net.socket_traffic import carried
from trunkline.address.host import without_zone
from trunkline.errors import DialError

if TYPE_CHECKING:
    from trunkline.address import Address, Proxy

__all__ = ["proxy_context", "secured"]

_CHUNK = 64 * 1024
_END_S = 1.0
"""Seconds that the proxy may still send after the driver has closed its end. Data that is on its
way is read meanwhile, as on a direct socket."""
_carriers: set[asyncio.Task[None]] = set()
"""The running carriers: the event loop itself keeps weak references to tasks alone."""


def proxy_context(address: Address) -> ssl.SSLContext:
    """The TLS context for a proxy: it trusts the system's certificates and those of `cafile`.

    With `insecureSkipVerify` any certificate is accepted. FatalError for a `cafile` that cannot be
    used."""
    context = tls.client_context(address, own_certificate=False)
    if address.option("cafile"):
        context.load_default_certs()
    return context


async def secured(
    sock: socket.socket, proxy: Proxy, context: ssl.SSLContext, limit_s: float
) -> socket.socket:
    """Make TLS to the proxy over `sock`, and return a plain socket to the inside of the TLS.

    `sock` belongs to the carrier afterwards. `limit_s`: the most seconds for the handshake. When
    the handshake fails, raises DialError, for a certificate FatalError.
    """
    try:
        reader, writer = await asyncio.open_connection(
            sock=sock,
            ssl=context,
            server_hostname=without_zone(proxy.host),
            ssl_handshake_timeout=limit_s,
            limit=_CHUNK,
        )
    except OSError as error:
        raise _explain(error, proxy) from None
    ours, theirs = _pair()
    task = asyncio.create_task(_Carrier(reader, writer, ours.fileno(), theirs).run())
    _carriers.add(task)
    task.add_done_callback(_carriers.discard)
    try:
        # The carrier's first step registers the socket. The driver may close it at any time after.
        await asyncio.sleep(0)
    except BaseException:
        ours.close()
        raise
    return ours


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets of this process. Not `socketpair`: libraries set TCP options."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        ours = socket.create_connection(listener.getsockname(), _END_S)
        while True:
            theirs, peer = listener.accept()
            # Another program of this machine may have connected first.
            if peer == ours.getsockname():
                break
            theirs.close()
    for end in (ours, theirs):
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


def _explain(error: OSError, proxy: Proxy) -> DialError:
    failure = tls.explain(error, proxy.host, proxy.port, has_servername=False)
    kind = FatalError if isinstance(failure, FatalError) else DialError
    return kind(f"proxy: {failure}", code=failure.code)


class _Carrier:
    """Copies bytes both ways between the TLS connection and one end of the pair of sockets."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        ours: int,
        pair: socket.socket,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._ours, self._pair = ours, pair
        self._inode = os.fstat(ours).st_ino
        self._taken = 0
        """Bytes that the TLS connection has taken."""

    async def run(self) -> None:
        """Copy bytes until the link has ended. Closes the carrier's sockets at the end."""
        writer = self._writer
        tcp = writer.get_extra_info("socket")
        # None where the proxy has ended the connection already.
        fd = -1 if tcp is None else int(tcp.fileno())
        with contextlib.ExitStack() as traffic:
            traffic.enter_context(
                carried(self._ours, fd, lambda: int(writer.transport.get_write_buffer_size()))
            )
            try:
                inner_reader, inner_writer = await asyncio.open_connection(
                    sock=self._pair, limit=_CHUNK
                )
            except BaseException:  # Cancelled before the copying began: nothing else closes these.
                self._pair.close()
                writer.transport.abort()
                raise
            down = asyncio.create_task(self._pump(self._reader, inner_writer))
            up = asyncio.create_task(self._pump(inner_reader, writer))
            try:
                await self._wait_for_end({down, up})
                # The driver may have closed its end. The number of that file descriptor may soon
                # belong to another socket, so its traffic must not be looked up any more.
                traffic.close()
                if not down.done():
                    if up.done():
                        # TLS cannot end one direction alone. Written data goes out before the end.
                        writer.close()
                    await asyncio.wait((down,), timeout=_END_S)
            finally:
                for task in (down, up):
                    task.cancel()
                await asyncio.gather(down, up, return_exceptions=True)
                inner_writer.close()  # data from the proxy goes out before the end
                writer.transport.abort()

    async def _wait_for_end(self, tasks: set[asyncio.Task[None]]) -> None:
        """Wait until one of the tasks has ended, or until neither of them can end by itself.

        Neither can end when the driver has closed its end, and the proxy takes no more data."""
        while True:
            before = self._taken
            done, _ = await asyncio.wait(tasks, timeout=_END_S, return_when=asyncio.FIRST_COMPLETED)
            if done or (self._taken == before and not self._is_used()):
                return

    def _is_used(self) -> bool:
        """Whether the driver's end is still open, judged by its file descriptor and inode."""
        # Reading until the end of the stream would not show the close: unread data stands before.
        with contextlib.suppress(OSError):
            return os.fstat(self._ours).st_ino == self._inode
        return False

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Copy bytes in one direction until the end of the stream or an error."""
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                sink.write(data)
                await sink.drain()
                if sink is self._writer:
                    self._taken += len(data)

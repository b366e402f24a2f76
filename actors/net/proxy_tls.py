"""TLS to a proxy (`proxy=https://...`): what is spoken behind it uses an ordinary socket all the same.

Every driver wants a connected socket, which some read in a thread and some wrap into TLS of their own. So
each gets one end of a pair of sockets, and a task on the loop carries the bytes between the other end and
the TLS connection.
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
"""How long the proxy may send after our end: what is on its way is read, as with a socket of the peer."""
_carriers: set[asyncio.Task[None]] = set()


def proxy_context(address: Address) -> ssl.SSLContext:
    """The context for a proxy: the system's certificates and those of `cafile`; any with
    `insecureSkipVerify`. FatalError for a `cafile` that cannot be used."""
    context = tls.client_context(address, own_certificate=False)
    if address.option("cafile"):
        context.load_default_certs()
    return context


async def secured(
    sock: socket.socket, proxy: Proxy, context: ssl.SSLContext, limit_s: float
) -> socket.socket:
    """A socket for what goes to and comes from the proxy inside TLS over `sock`, which is taken over.

    Raises DialError, FatalError for a certificate, when the handshake fails; `limit_s` seconds are its most.
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
        await asyncio.sleep(0)  # the carrier begins before the socket can be closed
    except BaseException:
        ours.close()
        raise
    return ours


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets of this process: libraries set TCP's options on what they are given."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        ours = socket.create_connection(listener.getsockname(), _END_S)
        while True:
            theirs, peer = listener.accept()
            if peer == ours.getsockname():  # another program may have been faster
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
    """Bytes both ways between the TLS connection and one end of the pair, until both have ended."""

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
        """Bytes that the proxy's side has taken."""

    async def run(self) -> None:
        writer = self._writer
        tcp = writer.get_extra_info("socket")
        fd = (
            -1 if tcp is None else int(tcp.fileno())
        )  # None: the proxy has ended the connection already
        with contextlib.ExitStack() as traffic:
            traffic.enter_context(
                carried(self._ours, fd, lambda: int(writer.transport.get_write_buffer_size()))
            )
            inner_reader, inner_writer = await asyncio.open_connection(
                sock=self._pair, limit=_CHUNK
            )
            down = asyncio.create_task(self._pump(self._reader, inner_writer))
            up = asyncio.create_task(self._pump(inner_reader, writer))
            try:
                await self._wait_for_end({down, up})
                traffic.close()  # our user may have closed its end, whose number may be another socket's soon
                if not down.done():
                    if up.done():
                        writer.close()  # TLS has no end of one direction; what was written goes out before
                    await asyncio.wait((down,), timeout=_END_S)
            finally:
                for task in (down, up):
                    task.cancel()
                await asyncio.gather(down, up, return_exceptions=True)
                inner_writer.close()  # what it was given goes out before
                writer.transport.abort()

    async def _wait_for_end(self, tasks: set[asyncio.Task[None]]) -> None:
        """Until one of the tasks has ended; or until our user has closed its end and the proxy takes nothing
        more, so that neither of them will."""
        while True:
            before = self._taken
            done, _ = await asyncio.wait(tasks, timeout=_END_S, return_when=asyncio.FIRST_COMPLETED)
            if done or (self._taken == before and not self._is_used()):
                return

    def _is_used(self) -> bool:
        """Asked of the descriptor: the end of the stream stands behind what we do not read now."""
        with contextlib.suppress(OSError):
            return os.fstat(self._ours).st_ino == self._inode
        return False

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                sink.write(data)
                await sink.drain()
                if sink is self._writer:
                    self._taken += len(data)

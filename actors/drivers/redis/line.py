"""One connection to one server: redis-py's connection class on a socket of Trunkline's.

Trunkline's dialer opens the socket and Trunkline's TLS options secure it. So `proxy=`, `local_ip=`,
`cafile=` and so on mean the same as for other schemes, and fail in the same words. redis-py logs
in, packs commands and parses answers. redis-py's pool, retries and timeouts are not used: the
worker dials a lost connection again.

A subclass provides the socket by overriding `_connect`, which sets `_reader` and `_writer`. A test
in test_redis_line fails when an update changes that.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

import redis.exceptions as library
from redis.asyncio.connection import AbstractConnection

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.redis.plan import Login
from trunkline.actors.drivers.redis.words import REPLIES, refused_link
from trunkline.actors.net import dialer, tls, tls_alerts
from trunkline.actors.net.liveness import Traffic
from trunkline.actors.net.socket_traffic import socket_traffic
from trunkline.address import Address
from trunkline.address.host import join_host_port
from trunkline.deadline import Deadline
from trunkline.errors import DialError

__all__ = ["Commands", "Line"]

_HIGH_WATER = 64 * 1024
_CLOSE_S = 0.4
_TOO_LATE = "the link ended before the answer came; the message may have arrived"

Reply = Any
"""An answer as redis-py parses it: bytes, int, None, a list of them, or one of `REPLIES`."""


class _CountingProtocol(asyncio.StreamReaderProtocol):
    """Counts the received bytes, for `traffic`."""

    received = 0

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        super().data_received(data)


class Line(AbstractConnection):
    """One connection.

    `dial` connects, and `listen` begins to read; `write` may be called from then on.
    """

    def __init__(
        self,
        address: Address,
        place: tuple[str, int],
        login: Login,
        database: int,
        name: str | None,
    ) -> None:
        super().__init__(
            db=database,
            username=login.user,
            password=login.password,
            client_name=name,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=None,
        )
        self._address, self._place = address, place
        loop = asyncio.get_running_loop()
        self._source = asyncio.StreamReader(limit=1 << 16, loop=loop)
        self._protocol = _CountingProtocol(self._source, loop=loop)
        self._stream: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._sent = 0
        self._last = Traffic(0)
        self.over: BaseException | None = None
        """Why no answers come any more; None while the connection is open."""

    @property
    def peer(self) -> str:
        return join_host_port(*self._place)

    # methods that redis-py demands of a connection class

    def repr_pieces(self) -> list[tuple[str, Any]]:
        return [("host", self.peer)]

    def _host_error(self) -> str:
        return self.peer

    async def _connect(self) -> None:
        assert self._stream is not None  # made by `dial`
        self._reader, self._writer = self._source, self._stream

    # the connection

    async def dial(self, deadline: Deadline) -> None:
        """Connect, start TLS and log in by the deadline.

        Raises DialError or FatalError in words.
        """
        host, port = self._place
        sock = await dialer.open_connection(self._address, deadline, host=host, port=port)
        try:
            secured: dict[str, Any] = {}
            if self._address.tls:
                context = await dialer.run_in_thread(lambda: tls.client_context(self._address))
                secured = {
                    "ssl": context,
                    "server_hostname": tls.server_hostname(self._address, host),
                }
                # Longer than the caller's own limit, whose error is the clearer report.
                secured["ssl_handshake_timeout"] = 1 + (deadline.timeout() or 60.0)
            loop = asyncio.get_running_loop()
            async with dialer.within(deadline, f"{self.peer} did not finish the TLS handshake"):
                transport, _ = await loop.create_connection(
                    lambda: self._protocol, sock=sock, **secured
                )
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise tls.explain(error, host, port) from None
            raise
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._stream = asyncio.StreamWriter(transport, self._protocol, self._source, loop)
        async with dialer.within(
            deadline, f"{self.peer} accepted the connection and did not answer as Redis does"
        ):
            await self._log_in()

    async def _log_in(self) -> None:
        """Let redis-py log in, and check by a PING that the peer speaks Redis."""
        try:
            await self.connect()  # type: ignore[no-untyped-call]
            await self.send_command("PING")  # a server that wants a login refuses this
            if await self.read_response() != b"PONG":
                raise library.InvalidResponse
        except REPLIES as error:
            raise refused_link(error, self.peer, self._address) from None
        except (library.InvalidResponse, ValueError):
            raise FatalError(
                f"{self.peer} does not speak Redis; check the port and the scheme"
            ) from None
        except library.RedisError as error:
            raise self.why_lost(error, opened=False) from None

    def listen(
        self, taken: Callable[[Reply], None], ended: Callable[[BaseException], None]
    ) -> None:
        """Hand each answer to `taken`.

        `ended` is called once, with the reason, when no more answers can come; it is not called
        after `close`.
        """
        self._reading = asyncio.ensure_future(self._read(taken, ended))

    async def _read(
        self, taken: Callable[[Reply], None], ended: Callable[[BaseException], None]
    ) -> None:
        """Read answers to the end of the connection. Runs as a task of its own."""
        try:
            while True:
                try:
                    reply = await self.read_response(disconnect_on_error=False)
                except REPLIES as error:
                    reply = error
                taken(reply)
        except (library.InvalidResponse, ValueError):
            self.over = ConnectionError(
                f"{self.peer} sent what is not Redis; the link counts as lost"
            )
        except Exception as error:
            self.over = self.why_lost(error)
        assert self.over is not None
        ended(self.over)

    def why_lost(self, error: BaseException, *, opened: bool = True) -> Exception:
        """Return the reason for users; `opened`: whether the link had been open."""
        if (alert := tls_alerts.in_words(error)) is not None:
            return FatalError(f"{self.peer} {alert}")
        if (words := tls.lost(error.__context__)) is not None:
            return ConnectionError(f"{self.peer}: {words}")
        if opened:
            return ConnectionError(f"{self.peer} closed the connection")
        hint = "" if self._address.tls else "; if it wants TLS, write rediss://"
        hint += (
            tls_alerts.if_it_wants_a_certificate(self._address.option("certfile"))
            if not hint
            else ""
        )
        return DialError(f"{self.peer} closed the connection before it answered{hint}")

    def write(self, *words: Any) -> None:
        """Send a command; ConnectionError where the link is gone."""
        if self.over is not None or self._stream is None or self._stream.transport.is_closing():
            raise ConnectionError("the link is gone")
        pieces = self.pack_command(*words)
        self._sent += sum(map(len, pieces))
        self._stream.writelines(pieces)

    @property
    def unsent(self) -> int:
        """How many bytes wait in this process for the network."""
        return 0 if self._stream is None else self._stream.transport.get_write_buffer_size()

    async def drained(self) -> None:
        """Wait until the bytes written so far are on their way.

        ConnectionError when the link ends.
        """
        if self._stream is None or self.over is not None:
            raise ConnectionError("the link is gone")
        await self._stream.drain()

    def traffic(self) -> Traffic:
        """The figures of `StreamDriver.traffic`, for this connection."""
        if self._stream is None or self._stream.transport.is_closing():
            return self._last
        sock = self._stream.get_extra_info("socket")
        unsent = self.unsent
        counted = Traffic(self._protocol.received, self._sent, unsent)
        self._last = socket_traffic(sock.fileno() if sock is not None else -1, unsent, counted)
        return self._last

    async def close(self) -> None:
        """Close within 0.4 s. Idempotent."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))
        self.over = self.over or ConnectionError("the link is gone")
        if self._stream is None:
            return
        self._reader = self._writer = None
        self._stream.close()
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._stream.wait_closed()
        self._stream.transport.abort()


class Commands:
    """Commands over one line. The server answers in the order of the commands."""

    def __init__(self, line: Line, ended: Callable[[BaseException], None]) -> None:
        self.line = line
        self._ended = ended
        self._asked: deque[asyncio.Future[Reply]] = deque()
        line.listen(self._taken, self._over)

    @property
    def waiting(self) -> int:
        """How many commands have no answer yet."""
        return len(self._asked)

    def call(self, *words: Any) -> asyncio.Future[Reply]:
        """Send a command and return a future for its answer.

        The future raises an answer that is an error. ConnectionError where the link is gone, raised
        by the call or by the future.
        """
        self.line.write(*words)
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_look_at)
        self._asked.append(answer)
        return answer

    def _taken(self, reply: Reply) -> None:
        """Give an answer to the oldest waiting command: a server answers in the order of the
        commands.
        """
        answer = self._asked.popleft()
        if answer.done():  # the caller has stopped waiting
            return
        if isinstance(reply, Exception):
            answer.set_exception(reply)
        else:
            answer.set_result(reply)

    def _over(self, reason: BaseException) -> None:
        self.give_up()
        self._ended(reason)

    def give_up(self) -> None:
        """End all waiting calls with an error."""
        for answer in self._asked:
            if not answer.done():
                answer.set_exception(ConnectionError(_TOO_LATE))
        self._asked.clear()

    async def settled(self, seconds: float) -> None:
        """Wait until all commands are answered, at most `seconds`."""
        if self._asked:
            await asyncio.wait(list(self._asked), timeout=seconds)

    async def close(self) -> None:
        """Close the line, and end all waiting calls with an error."""
        await self.line.close()
        self.give_up()


def _look_at(answer: asyncio.Future[Reply]) -> None:
    """Mark the error of an answer as seen: not every answer is awaited."""
    if not answer.cancelled():
        answer.exception()

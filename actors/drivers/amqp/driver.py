"""AMQP 0-9-1 (RabbitMQ): `amqp://` and `amqps://`, on pika.

A link is one connection with two channels, so a refusal on the writing channel does not disturb the
reading one. This module holds the life of a link. Its neighbours: `plan` (what an address asks
for), `client` (pika's I/O on the worker's event loop), `topology` (the queue and the exchange),
`reader` and `writer` (the two channels), `envelope`, `errors`, `memory` (what outlives a link).
Everything runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Sequence
from typing import Any, ClassVar

from pika import ConnectionParameters, PlainCredentials
from pika.exceptions import AMQPError, ConnectionClosedByBroker

from trunkline.actors.driver import Delivery, Outgoing, Overflow, Sink, StreamDriver
from trunkline.actors.drivers.amqp.client import Services, Stream, fail, resolve
from trunkline.actors.drivers.amqp.errors import cause, explain_opening_error
from trunkline.actors.drivers.amqp.header import AmqpConnection
from trunkline.actors.drivers.amqp.memory import memory_of
from trunkline.actors.drivers.amqp.plan import Plan, make_plan
from trunkline.actors.drivers.amqp.reader import Reader
from trunkline.actors.drivers.amqp.topology import Topology
from trunkline.actors.drivers.amqp.writer import Writer
from trunkline.actors.net import dialer, tls
from trunkline.actors.net.servers import first_that_opens
from trunkline.actors.net.tls_alerts import if_it_wants_a_certificate
from trunkline.address import Address
from trunkline.address.host import join_host_port
from trunkline.deadline import Deadline
from trunkline.errors import DialError

__all__ = ["AmqpDriver"]

_CLOSE_S = 0.9
"""Seconds for the broker's answer to the end of the connection. Acknowledgements sent before count
then.
"""
_CUT_S = 0.3

logging.getLogger("pika").setLevel(logging.CRITICAL + 1)  # the driver reports pika's errors itself


class AmqpDriver(StreamDriver):
    """One link to a RabbitMQ broker; docs/amqp.md is the reference."""

    schemes: ClassVar[tuple[str, ...]] = ("amqp", "amqps")
    overflow: ClassVar[Overflow] = Overflow.BACK_PRESSURE
    confirms: ClassVar[bool] = True
    extra: ClassVar[str | None] = "amqp"
    addressing: ClassVar[frozenset[str]] = frozenset(
        ("topic", "headers", "expiry_ms", "reply_to", "correlation", "answers")
    )
    verdicts: ClassVar[frozenset[str]] = frozenset(("nak", "reject"))

    def __init__(self, address: Address, sink: Sink) -> None:
        super().__init__(address, sink)
        self._stream: Stream | None = None
        self._connection: Any = None
        self._reader: Reader | None = None
        self._writer: Writer | None = None
        self._opened = False
        self._silence_timer: asyncio.TimerHandle | None = None
        self._memory = memory_of(address)

    @classmethod
    def redelivers(cls, address: Address) -> bool:
        return True

    # opening

    async def open(self, deadline: Deadline) -> None:
        """Try the servers of the address until a link opens. A context for TLS reads files, so a
        thread makes it.
        """
        self._memory.inherit(self.inherited)
        plan = make_plan(self.address)
        context = None
        if self.address.tls:
            context = await dialer.run_in_thread(lambda: tls.client_context(self.address))
        servers = list(enumerate(self.address.hosts)) or [
            (0, (self.address.host or "", self.address.port))
        ]

        async def attempt(server: tuple[int, tuple[str, int | None]], share: Deadline) -> None:
            number, (host, port) = server
            await self._open_at(host, port or 0, self._login(number), context, plan, share)

        await first_that_opens(servers, attempt, deadline)

    def _login(self, number: int) -> PlainCredentials:
        """Return the login for the server with this index; RabbitMQ's `guest` where the address
        gives none.
        """
        logins = self.address.extra.get("logins")
        user, password = logins[number] if logins else (self.address.user, self.address.password)
        return (
            PlainCredentials("guest", "guest")
            if user is None
            else PlainCredentials(user, password or "")
        )

    async def _open_at(
        self,
        host: str,
        port: int,
        login: PlainCredentials,
        context: ssl.SSLContext | None,
        plan: Plan,
        deadline: Deadline,
    ) -> None:
        """Connect to one server, start TLS, log in and subscribe. A failure closes the connection
        again.
        """
        peer = join_host_port(host, port)
        sock = await dialer.open_connection(self.address, deadline, host=host, port=port)
        hint = "" if context is None else if_it_wants_a_certificate(self.address.option("certfile"))
        self._stream = stream = Stream(peer, self._hand_over, self._note_writable, hint=hint)
        try:
            async with dialer.within(
                deadline, f"no TLS answer from {peer} (does this port serve TLS?)"
            ):
                await _connect(stream, sock, context, tls.server_hostname(self.address, host))
        except BaseException as error:
            sock.close()
            self._stream = None
            if (
                context is not None
                and isinstance(error, OSError)
                and not isinstance(error, DialError)
            ):
                raise tls.explain(error, host, port) from None
            raise
        try:
            async with dialer.within(deadline, f"no AMQP answer from {peer}"):
                await self._log_in(stream, host, port, login, plan)
                await self._subscribe(stream, plan)
            if stream.error is not None:
                raise stream.error
        except BaseException as error:
            why = stream.error
            await self.close()
            if isinstance(error, AMQPError):
                raise explain_opening_error(error, why, peer, self._hide) from None
            raise
        self._opened = True
        self._check_silence(plan.heartbeat_s)

    async def _log_in(
        self, stream: Stream, host: str, port: int, login: PlainCredentials, plan: Plan
    ) -> None:
        """Let pika greet the broker and log in; return when the connection is open."""
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        parameters = ConnectionParameters(
            host=host,
            port=port,
            virtual_host=plan.vhost,
            credentials=login,
            heartbeat=plan.heartbeat_s,
            socket_timeout=None,  # the caller's deadline is the limit
            stack_timeout=None,
            client_properties={"product": "trunkline", "connection_name": plan.name},
        )
        self._connection = AmqpConnection(
            parameters,
            on_open_callback=lambda connection: resolve(opened),
            on_open_error_callback=lambda connection, why: fail(opened, cause(why)),
            on_close_callback=self._note_ended,
            custom_ioloop=Services(stream),
        )
        await opened

    async def _subscribe(self, stream: Stream, plan: Plan) -> None:
        """Declare missing things, open the writing channel, and subscribe last, so no message waits
        for the rest.
        """
        topology = Topology(
            self._connection,
            plan,
            self._memory,
            had_link=self.had_link,
            peer=stream.peer,
            warn=self.sink.warn,
        )
        queue = await topology.prepare()
        reader = self._reader = Reader(
            topology.channel,
            plan,
            self._memory,
            self.sink,
            largest=int(self.address.option("max_size")),
            cut=self._cut,
            hide=self._hide,
        )
        self._writer = Writer(self._connection, stream, plan)
        await self._writer.open()
        if queue is None:
            return
        await reader.limit()
        stream.consuming = True
        await reader.begin(self._connection, queue, topology.ready, self.address.params.get("type"))

    def _hide(self, text: str) -> str:
        """Return the broker's words without the user's name."""
        return (
            text.replace(f"user '{self.address.user}'", "this user") if self.address.user else text
        )

    # the link

    def _note_ended(self, connection: Any, reason: Exception) -> None:
        """Handle pika's report that the connection is over."""
        error = self._stream.error if self._stream is not None else None
        if isinstance(reason, ConnectionClosedByBroker):
            error = ConnectionError(
                f"the broker closed the connection: {self._hide(reason.reply_text)}"
            )
        error = error or ConnectionError(str(reason) or type(reason).__name__)
        if self._reader is not None:
            self._reader.close()
        if self._writer is not None:
            self._writer.fail(error)
        if self._opened:
            self._opened = False
            self.sink.lost(error)

    def _cut(self, why: str) -> None:
        if self._stream is not None:
            self._stream.cut(ConnectionError(why))

    def _check_silence(self, beat_s: float) -> None:
        """End the link when the broker is silent for 1.5 heartbeats, and look again later
        otherwise.

        pika alone would need up to twice the heartbeat and ten seconds more.
        """
        stream, loop = self._stream, asyncio.get_running_loop()
        if not beat_s or not self._opened or stream is None:
            return
        silent = loop.time() - stream.heard_at
        if silent > 1.5 * beat_s:
            self._cut(f"{stream.peer} has been silent for {silent:.0f} s (no heartbeat)")
        else:
            self._silence_timer = loop.call_later(beat_s / 4, self._check_silence, beat_s)

    async def close(self) -> None:
        """Close in good order within `_CLOSE_S` seconds, otherwise cut the connection.

        pika sends its close frame behind the acknowledgements, so the broker's answer confirms
        these, too.
        """
        self._opened = False
        if self._silence_timer is not None:
            self._silence_timer.cancel()
        if self._reader is not None:
            self._reader.close()
        stream, self._stream = self._stream, None
        if stream is None:
            return
        if stream.error is None and self._connection is not None and self._connection.is_open:
            stream.leaving = True
            with contextlib.suppress(AMQPError, TimeoutError):
                self._connection.close()
                await asyncio.wait_for(stream.gone.wait(), _CLOSE_S)
        stream.cut(ConnectionError("closed by us"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stream.gone.wait(), _CUT_S)
        if self._writer is not None:
            self._writer.fail(ConnectionError("closed by us"))

    async def ping(self) -> None:
        """Do nothing: pika sends heartbeats."""

    # reading

    def bequeath(self) -> dict[str, Any]:
        return self._memory.bequeath()

    def lag(self) -> int | None:
        return self._reader.lag() if self._opened and self._reader is not None else None

    def _hand_over(self) -> None:
        if self._reader is not None:
            self._reader.hand_over()

    def pause(self) -> None:
        if self._reader is not None:
            self._reader.pause()

    def resume(self) -> None:
        if self._reader is not None:
            self._reader.resume()

    def settle(self, tokens: Sequence[Any]) -> None:
        if self._reader is not None:
            self._reader.settle(tokens)

    def refuse(self, token: Any, verdict: str, delay_ms: float) -> None:
        if self._reader is not None:
            self._reader.refuse(token, verdict, delay_ms)

    # writing

    def _note_writable(self) -> None:
        if self._writer is not None:
            self._writer.changed()

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        body = data.encode() if isinstance(data, str) else data
        return await self._living_writer().write(body, deadline)

    async def send_to(
        self, data: str | bytes | None, outgoing: Outgoing, deadline: Deadline
    ) -> int:
        body = data.encode() if isinstance(data, str) else data or b""
        return await self._living_writer().write_to(body, outgoing, deadline)

    async def request(self, data: str | bytes, deadline: Deadline) -> Delivery:
        body = data.encode() if isinstance(data, str) else data
        return await self._living_writer().request(body, deadline)

    def _living_writer(self) -> Writer:
        """Return the writer of the link; ConnectionError where there is no link."""
        if self._writer is None:
            raise ConnectionError("the link is gone")
        return self._writer


async def _connect(stream: Stream, sock: Any, context: ssl.SSLContext | None, name: str) -> None:
    """Make the stream the protocol of the connected socket, with TLS where a context is given."""
    loop = asyncio.get_running_loop()
    if context is None:
        await loop.create_connection(lambda: stream, sock=sock)
    else:
        await loop.create_connection(
            lambda: stream,
            sock=sock,
            ssl=context,
            server_hostname=name,
            ssl_handshake_timeout=3600.0,  # longer than the caller's own limit
        )

"""AMQP 0-9-1 (RabbitMQ): `amqp://` and `amqps://`, on pika.

One connection with two channels: what is refused on the one that writes does not disturb the one that reads.
Beside this file: the plan that an address makes, pika's I/O on our loop, envelopes, what its errors say,
and the writing channel.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Sequence
from typing import Any, ClassVar

from pika import ConnectionParameters, PlainCredentials
from pika.exceptions import (
    AMQPError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from trunkline.actors.driver import Delivery, FatalError, Outgoing, Overflow, Sink, StreamDriver
from trunkline.actors.drivers.amqp.envelope import delivery
from trunkline.actors.drivers.amqp.header import AmqpConnection, Properties
from trunkline.actors.drivers.amqp.io import Services, Stream, ask, fail, resolve
from trunkline.actors.drivers.amqp.memory import memory_of
from trunkline.actors.drivers.amqp.plan import STREAM_OFFSET, Plan, make_plan
from trunkline.actors.drivers.amqp.publisher import Publisher
from trunkline.actors.drivers.amqp.strays import Strays
from trunkline.actors.drivers.amqp.topology import Topology
from trunkline.actors.drivers.amqp.watch import QueueWatch
from trunkline.actors.drivers.amqp.words import cause, reason
from trunkline.actors.net import dialer, tls
from trunkline.actors.net.servers import first_that_opens
from trunkline.actors.net.tls_alerts import if_it_wants_a_certificate
from trunkline.address import Address
from trunkline.address.host import join_host_port
from trunkline.deadline import Deadline
from trunkline.errors import DialError

__all__ = ["AmqpDriver"]

_ACCESS_REFUSED, _NOT_FOUND, _LOCKED = 403, 404, 405
_PASSING = ("limit", "is down")
"""In the broker's words for a refusal that need not last."""
_CLOSE_S = 0.9
"""How long the broker has to answer that we leave: what was acknowledged before counts then."""
_CUT_S = 0.3

logging.getLogger("pika").setLevel(logging.CRITICAL + 1)  # what it has to say, we say


class AmqpDriver(StreamDriver):
    """See the module; the reference is `docs/amqp.md`."""

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
        self._reader: Any = None
        self._publisher: Publisher | None = None
        self._opened = False
        self._largest = int(address.option("max_size"))
        self._batch: list[Delivery] = []
        self._held = False
        self._settled_through = 0
        self._settled_beyond: set[int] = set()
        self._watch: asyncio.TimerHandle | None = None
        self._queue_watch: QueueWatch | None = None
        self._memory = memory_of(address)
        self._strays: Strays | None = None
        self._offsets: dict[int, int] | None = None
        """Of a stream: the offset of each message that is not settled, by its delivery tag."""

    @classmethod
    def redelivers(cls, address: Address) -> bool:
        return True

    # opening

    async def open(self, deadline: Deadline) -> None:
        self._memory.inherit(self.inherited)
        plan = make_plan(self.address)
        context = None
        if self.address.tls:
            context = await dialer.run_in_thread(lambda: tls.client_context(self.address))
        servers = list(enumerate(self.address.hosts)) or [(0, (self.address.host or "", self.address.port))]

        async def attempt(server: tuple[int, tuple[str, int | None]], share: Deadline) -> None:
            number, (host, port) = server
            await self._open_at(host, port or 0, self._login(number), context, plan, share)

        await first_that_opens(servers, attempt, deadline)

    def _login(self, number: int) -> PlainCredentials:
        logins = self.address.extra.get("logins")
        user, password = logins[number] if logins else (self.address.user, self.address.password)
        return PlainCredentials("guest", "guest") if user is None else PlainCredentials(user, password or "")

    async def _open_at(
        self,
        host: str,
        port: int,
        login: PlainCredentials,
        context: ssl.SSLContext | None,
        plan: Plan,
        deadline: Deadline,
    ) -> None:
        peer = join_host_port(host, port)
        sock = await dialer.open_connection(self.address, deadline, host=host, port=port)
        hint = "" if context is None else if_it_wants_a_certificate(self.address.option("certfile"))
        self._stream = stream = Stream(peer, self._flush, self._writable, hint=hint)
        try:
            async with dialer.within(deadline, f"no TLS answer from {peer} (does this port serve TLS?)"):
                await _connect(stream, sock, context, tls.server_hostname(self.address, host))
        except BaseException as error:
            sock.close()
            self._stream = None
            if context is not None and isinstance(error, OSError) and not isinstance(error, DialError):
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
                raise self._in_words(error, why, peer) from None
            raise
        self._opened = True
        self._look(plan.heartbeat_s)

    async def _log_in(
        self, stream: Stream, host: str, port: int, login: PlainCredentials, plan: Plan
    ) -> None:
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        parameters = ConnectionParameters(
            host=host,
            port=port,
            virtual_host=plan.vhost,
            credentials=login,
            heartbeat=plan.heartbeat_s,
            socket_timeout=None,  # the deadline is ours
            stack_timeout=None,
            client_properties={"product": "trunkline", "connection_name": plan.name},
        )
        self._connection = AmqpConnection(
            parameters,
            on_open_callback=lambda connection: resolve(opened),
            on_open_error_callback=lambda connection, why: fail(opened, cause(why)),
            on_close_callback=self._ended,
            custom_ioloop=Services(stream),
        )
        await opened

    async def _subscribe(self, stream: Stream, plan: Plan) -> None:
        """Declare what is missing, then write, then read: what comes is not kept waiting."""
        topology = Topology(
            self._connection,
            plan,
            self._memory,
            had_link=self.had_link,
            peer=stream.peer,
            warn=self.sink.warn,
        )
        queue = await topology.prepare()
        self._reader = topology.channel
        self._publisher = Publisher(self._connection, stream, plan)
        await self._publisher.open()
        if queue is None:
            return
        reader = self._reader
        self._strays = Strays(plan, self.address.params.get("type"))
        reader.add_on_cancel_callback(self._cancelled)
        await ask(reader.basic_qos, prefetch_count=plan.prefetch)
        stream.consuming = True
        self._queue_watch = QueueWatch(self._connection, plan, queue, self._exchange_gone)
        self._queue_watch.ready(topology.ready)
        arguments = self._consume_arguments(plan)
        await ask(reader.basic_consume, queue, self._take, exclusive=plan.exclusive, arguments=arguments)
        reader.add_on_close_callback(self._unsubscribed)

    def _consume_arguments(self, plan: Plan) -> dict[str, Any] | None:
        """A stream is read on from where readers are, not once more from where it was begun."""
        self._offsets = {} if plan.streams else None
        if plan.streams and self._memory.stream_next is not None:
            return {**(plan.consume_arguments or {}), STREAM_OFFSET: self._memory.stream_next}
        return plan.consume_arguments

    # what went wrong, in words

    def _in_words(self, error: AMQPError, why: Exception | None, peer: str) -> Exception:
        """A failure of `open` that pika tells; `why` is what the stream knows of it."""
        if isinstance(error, ChannelClosedByBroker):
            return self._refusal(error.reply_code, self._hidden(str(error.reply_text)), peer)
        code, text = reason(error)
        text = self._hidden(text)
        if isinstance(error, ProbableAuthenticationError) and code == _ACCESS_REFUSED:
            return FatalError(
                f"{peer} refused the login (ACCESS_REFUSED); check user and password", code=code
            )
        if isinstance(error, ProbableAccessDeniedError) and code is not None:
            kind = DialError if any(word in text for word in _PASSING) else FatalError
            return kind(f"{peer} refused the virtual host: {text}", code=code)
        if code is not None or why is None:
            return DialError(f"{peer} closed the connection: {text}", code=code)
        return why if isinstance(why, DialError) else DialError(str(why))

    def _refusal(self, code: int, text: str, peer: str) -> DialError:
        if code == _LOCKED or (code == _ACCESS_REFUSED and "exclusive use" in text):
            return DialError(f"{peer}: another connection has the queue for itself: {text}", code=code)
        if code == _ACCESS_REFUSED:
            return FatalError(f"{peer}: {text}; give the user that right, or use another queue", code=code)
        kind = DialError if code == _NOT_FOUND else FatalError
        return kind(f"{peer} refused the subscription: {text}", code=code)

    def _hidden(self, text: str) -> str:
        return text.replace(f"user '{self.address.user}'", "this user") if self.address.user else text

    # the link

    def _ended(self, connection: Any, reason: Exception) -> None:
        """pika says that the connection is over."""
        error = self._stream.error if self._stream is not None else None
        if isinstance(reason, ConnectionClosedByBroker):
            error = ConnectionError(f"the broker closed the connection: {self._hidden(reason.reply_text)}")
        error = error or ConnectionError(str(reason) or type(reason).__name__)
        if self._queue_watch is not None:
            self._queue_watch.close()
        if self._publisher is not None:
            self._publisher.fail(error)
        if self._opened:
            self._opened = False
            self.sink.lost(error)

    def _cancelled(self, frame: Any) -> None:
        self._memory.deleted.add("queue")  # unless it is there when we come back
        self._cut("the broker cancelled the subscription: the queue was deleted, or its node is gone")

    def _exchange_gone(self) -> None:
        self._memory.deleted.add("exchange")
        self._cut("the exchange was deleted on the broker, and what is published to it comes no more")

    def _unsubscribed(self, channel: Any, reason: Exception) -> None:
        if isinstance(reason, ChannelClosedByBroker):
            text = str(reason.reply_text)
            late = "a message was unread for longer than the broker's consumer_timeout"
            self._cut(
                f"the broker ended the subscription: {late if 'timed out' in text else self._hidden(text)}"
            )

    def _cut(self, why: str) -> None:
        if self._stream is not None:
            self._stream.cut(ConnectionError(why))

    def _look(self, beat_s: float) -> None:
        """pika takes up to twice the heartbeat and ten seconds to notice that a broker is silent."""
        stream, loop = self._stream, asyncio.get_running_loop()
        if not beat_s or not self._opened or stream is None:
            return
        silent = loop.time() - stream.heard_at
        if silent > 1.5 * beat_s:
            self._cut(f"{stream.peer} has been silent for {silent:.0f} s (no heartbeat)")
        else:
            self._watch = loop.call_later(beat_s / 4, self._look, beat_s)

    async def close(self) -> None:
        self._opened = False
        if self._watch is not None:
            self._watch.cancel()
        if self._queue_watch is not None:
            self._queue_watch.close()
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
        if self._publisher is not None:
            self._publisher.fail(ConnectionError("closed by us"))

    async def ping(self) -> None:
        """pika's heartbeats do it."""

    # reading

    def _take(self, channel: Any, method: Any, properties: Properties, body: bytes) -> None:
        found = delivery(method, properties, body)
        if self._queue_watch is not None:
            self._queue_watch.counted(delivered=1)
        if properties.unread:
            names = ", ".join(map(repr, properties.unread))
            self.sink.warn(f"headers of a message could not be read and were left out: {names}")
        if self._offsets is not None:
            found = self._of_stream(self._offsets, found)
        if self._strays is not None and not self._memory.stray_told:
            warning = self._strays.warning(method.exchange, found.topic or "")
            if warning is not None:
                self._memory.stray_told = True
                self.sink.warn(warning)
        if len(body) <= self._largest:
            self._batch.append(found)
            return
        # The broker puts it where dead letters go, or drops it; it must not come again and again.
        channel.basic_reject(method.delivery_tag, requeue=False)
        self._done(method.delivery_tag)
        self.sink.dropped(1)
        self.sink.warn(f"a message of {len(body)} bytes was rejected: max_size is {self._largest} bytes")

    def _of_stream(self, offsets: dict[int, int], found: Delivery) -> Delivery:
        """A stream says of no message that it came before, but numbers them."""
        number = (found.headers or {}).get(STREAM_OFFSET)
        if not isinstance(number, int):
            return found
        offsets[found.token] = number
        again = number <= self._memory.stream_seen
        self._memory.stream_seen = max(number, self._memory.stream_seen)
        return found._replace(redelivered=found.redelivered or again, identity=(STREAM_OFFSET, number))

    def bequeath(self) -> dict[str, Any]:
        return self._memory.bequeath()

    def lag(self) -> int | None:
        """Of a stream, from which nothing is taken, it is not known."""
        if self._queue_watch is None or self._offsets is not None or not self._opened:
            return None
        return self._queue_watch.lag()

    def _flush(self) -> None:
        if self._batch and not self._held:
            batch, self._batch = self._batch, []
            self.sink.deliver(batch)

    def pause(self) -> None:
        """Keep what comes: it is no more than `prefetch`, and heartbeats have to be read meanwhile."""
        self._held = True

    def resume(self) -> None:
        self._held = False
        self._flush()

    def settle(self, tokens: Sequence[Any]) -> None:
        """Acknowledge, those that follow one another together."""
        if self._reader is None or not self._reader.is_open:
            return
        last = 0
        for tag in tokens:
            if tag == self._settled_through + 1:
                last = tag
                self._done(tag)
            elif tag > self._settled_through:
                self._reader.basic_ack(tag)
                self._done(tag)
        if last:
            self._reader.basic_ack(last, multiple=True)

    def refuse(self, token: Any, verdict: str, delay_ms: float) -> None:
        """Give the message back to its queue (after the delay, which AMQP itself does not know), or have it
        dead-lettered."""
        if delay_ms:
            asyncio.get_running_loop().call_later(delay_ms / 1000, self.refuse, token, verdict, 0.0)
        elif self._reader is not None and self._reader.is_open and token > self._settled_through:
            self._reader.basic_nack(token, requeue=verdict == "nak")
            self._done(token)

    def _done(self, tag: int) -> None:
        if self._queue_watch is not None:
            self._queue_watch.counted(settled=1)
        self._settled_beyond.add(tag)
        while self._settled_through + 1 in self._settled_beyond:
            self._settled_through += 1
            self._settled_beyond.remove(self._settled_through)
            if self._offsets and (number := self._offsets.pop(self._settled_through, None)) is not None:
                self._memory.stream_next = number + 1

    # writing

    def _writable(self) -> None:
        if self._publisher is not None:
            self._publisher.changed()

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        return await self._writer().write(data.encode() if isinstance(data, str) else data, deadline)

    async def send_to(self, data: str | bytes | None, outgoing: Outgoing, deadline: Deadline) -> int:
        body = data.encode() if isinstance(data, str) else data or b""
        return await self._writer().write_to(body, outgoing, deadline)

    async def request(self, data: str | bytes, deadline: Deadline) -> Delivery:
        return await self._writer().request(data.encode() if isinstance(data, str) else data, deadline)

    def _writer(self) -> Publisher:
        if self._publisher is None:
            raise ConnectionError("the link is gone")
        return self._publisher


async def _connect(stream: Stream, sock: Any, context: ssl.SSLContext | None, name: str) -> None:
    loop = asyncio.get_running_loop()
    if context is None:
        await loop.create_connection(lambda: stream, sock=sock)
    else:
        await loop.create_connection(
            lambda: stream,
            sock=sock,
            ssl=context,
            server_hostname=name,
            ssl_handshake_timeout=3600.0,  # our own limit is shorter, and it is the one to speak of
        )

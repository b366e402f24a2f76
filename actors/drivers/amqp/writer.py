"""The channel that an amqp connection writes to: publisher confirms, returned messages, questions.

Each caller learns the outcome of its message: confirmed, returned because no queue takes it,
refused, or unknown. Telling the cases apart makes the module long. Everything runs on the event
loop.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from itertools import takewhile
from math import ceil
from typing import Any, NamedTuple

from pika import spec
from pika.exceptions import AMQPError, ChannelClosedByBroker

from trunkline.actors.driver import Delivery, FatalError, Outgoing
from trunkline.actors.drivers.amqp.client import Stream, ask, fail, open_channel, resolve
from trunkline.actors.drivers.amqp.envelope import delivery
from trunkline.actors.drivers.amqp.plan import Plan
from trunkline.actors.drivers.amqp.table import WrittenProperties
from trunkline.deadline import Deadline
from trunkline.errors import OperationTimeout, RefusedError, Unconfirmed

__all__ = ["Writer"]

_REPLY_QUEUE = "amq.rabbitmq.reply-to"
_REOPEN_S = 10.0
_TOO_LONG = re.compile(r"size (\d+) .*max size (\d+)")
_NO_ROUTE = 312
_PERSISTENT = 2
_LONGEST_KEY = 255


class _Route(NamedTuple):
    """Where a message goes."""

    exchange: str
    key: str

    @property
    def is_reply_queue(self) -> bool:
        """Whether the route is an asker's reply queue.

        RabbitMQ counts that as no queue for a `mandatory` message.
        """
        return not self.exchange and self.key.startswith(f"{_REPLY_QUEUE}.")

    def __str__(self) -> str:
        text = f"routing key '{self.key}'"
        return f"{text} of exchange '{self.exchange}'" if self.exchange else text


class _Pending:
    """A message that the broker has not confirmed yet."""

    __slots__ = ("body", "correlation", "end", "future", "question", "returned", "route")

    def __init__(
        self, body: bytes, route: _Route, correlation: str | bytes | None, question: str | None
    ) -> None:
        self.body = body
        self.route = route
        self.correlation = correlation
        self.question = question
        self.end = 0
        self.returned: RefusedError | None = None
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Writer:
    """Writes to one exchange, with the plan's routing key or that of the message.

    `_turn` keeps the order: the caller that holds it waits for `_go`, and later callers wait for
    `_turn`.
    """

    def __init__(self, connection: Any, stream: Stream, plan: Plan) -> None:
        self.blocked: str | None = None
        """The broker's reason for taking no messages now; None while messages are taken."""
        self._connection, self._stream, self._plan = connection, stream, plan
        self._route = None if plan.write_key is None else _Route(plan.exchange, plan.write_key)
        self._properties = self._with()
        try:
            self._properties.encode()
        except ValueError as error:
            raise FatalError(f"headers cannot be sent: {error}") from None
        self._channel: Any = None
        self._error: Exception | None = None
        self._pending: dict[int, _Pending] = {}
        self._tag = 0
        self._go = asyncio.Event()
        self._turn = asyncio.Lock()
        self._limit: int | None = None
        self._mending: asyncio.Task[None] | None = None
        self._asking = False
        self._answers: dict[str, asyncio.Future[Delivery]] = {}
        self._asked = 0
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)

    def _with(self, headers: Mapping[str, Any] | None = None, **more: Any) -> WrittenProperties:
        """Return the address's properties with these headers and additions."""
        mode = _PERSISTENT if self._plan.persistent else None
        given = self._plan.headers if headers is None else dict(headers) or None
        return WrittenProperties(headers=given, delivery_mode=mode, **more)

    def _own_route(self) -> _Route:
        """Return the address's destination; RefusedError for an address without one."""
        if self._route is None:
            raise RefusedError(
                "every routing_key is a pattern: give write_topic= in the address, or topic= with the message"
            )
        return self._route

    async def open(self) -> None:
        """Open the channel, for the first time or after the broker has closed it."""
        channel = await open_channel(self._connection)
        channel.add_on_return_callback(self._on_return)
        await ask(channel.confirm_delivery, self._on_confirmation)
        channel.add_on_close_callback(self._on_closed)
        self._channel, self._tag, self._asking = channel, 0, False
        self.changed()

    def fail(self, error: Exception) -> None:
        """End all waiting calls with an error: the link has ended."""
        self._error = error
        if self._mending is not None:
            self._mending.cancel()
        for pending in self._pending.values():
            fail(
                pending.future,
                ConnectionError(f"{error}; the message had been sent and may have arrived"),
            )
        for answer in self._answers.values():
            fail(answer, ConnectionError(f"{error}; the answer is lost"))
        self._pending.clear()
        self.changed()

    def changed(self) -> None:
        """Let waiting callers go on when a message can be handed over, or when no message ever
        can.
        """
        free = self._channel is not None and self._stream.writable and self.blocked is None
        (self._go.set if free or self._error is not None else self._go.clear)()

    def _on_blocked(self, connection: Any, frame: Any) -> None:
        self.blocked = str(frame.method.reason) or "no reason given"
        self.changed()

    def _on_unblocked(self, connection: Any, frame: Any) -> None:
        self.blocked = None
        self.changed()

    # writing

    async def write(self, body: bytes, deadline: Deadline) -> int:
        """Publish and wait for the broker's confirmation. See `StreamDriver.send`."""
        return await self._publish(body, self._own_route(), self._properties, deadline)

    async def write_to(self, body: bytes, outgoing: Outgoing, deadline: Deadline) -> int:
        """Publish a message that has its own destination. See `StreamDriver.send_to`.

        An answer goes to the asker's queue, by the default exchange, which finds queues by name.
        """
        if outgoing.topic is None:
            route = self._own_route()
        else:
            route = _Route("" if outgoing.answers else self._plan.exchange, outgoing.topic)
        return await self._publish(body, route, self._addressed(outgoing, route), deadline)

    def _addressed(self, outgoing: Outgoing, route: _Route) -> WrittenProperties:
        """Return the properties of a message with its own destination; RefusedError for impossible
        ones.
        """
        expiry = outgoing.expiry_ms
        properties = self._with(
            outgoing.headers,
            expiration=None if expiry is None else str(ceil(expiry)),
            reply_to=outgoing.reply_to,
            correlation_id=_as_read(outgoing.correlation),
        )
        if len(route.key.encode()) > _LONGEST_KEY:
            raise RefusedError(
                f"a routing key of {len(route.key.encode())} bytes: AMQP allows {_LONGEST_KEY}"
            )
        try:
            properties.encode()
        except ValueError as error:
            raise RefusedError(f"the message cannot be sent: {error}") from None
        return properties

    async def _publish(
        self, body: bytes, route: _Route, properties: WrittenProperties, deadline: Deadline
    ) -> int:
        """Send a message and wait for the broker's confirmation. Returns 0 when it did not go out
        in time.
        """
        pending = await self._send(body, route, properties, None, deadline)
        if pending is None:
            return 0
        try:
            async with asyncio.timeout(deadline.timeout()):
                await pending.future
        except TimeoutError:
            if await self._keep_back(pending):
                return 0
            why = f"{self._stream.peer} did not confirm the message in time; it may or may not have it"
            if self.blocked is not None:
                why = f"{self._is_blocked()}; the message may still be taken later"
            raise Unconfirmed(why) from None
        return len(body)

    async def _send(
        self,
        body: bytes,
        route: _Route,
        properties: WrittenProperties,
        question: str | None,
        deadline: Deadline,
    ) -> _Pending | None:
        """Hand the message to pika as soon as no older one waits.

        None when the deadline came first.
        """
        try:
            async with asyncio.timeout(deadline.timeout()), self._turn:
                await self._go.wait()
                return self._hand_over(body, route, properties, question)
        except TimeoutError:
            if self.blocked is not None:
                raise OperationTimeout(self._is_blocked()) from None
            return None

    def _hand_over(
        self, body: bytes, route: _Route, properties: WrittenProperties, question: str | None
    ) -> _Pending:
        """Give the message to pika and enter it among the unconfirmed messages, by its delivery
        tag.
        """
        if self._error is not None:
            raise ConnectionError(str(self._error))
        if self._limit is not None and len(body) > self._limit:
            raise RefusedError(
                f"a message of {len(body)} bytes: the broker takes at most {self._limit}"
            )
        pending = _Pending(body, route, properties.correlation_id, question)
        try:
            mandatory = self._plan.mandatory and not route.is_reply_queue
            self._channel.basic_publish(*route, body, properties, mandatory)
        except AMQPError as error:  # the link is ending, and nothing was sent
            raise ConnectionError(str(error) or type(error).__name__) from None
        self._tag += 1
        self._pending[self._tag] = pending
        pending.end = self._stream.written
        return pending

    async def _keep_back(self, pending: _Pending) -> bool:
        """Keep the message from being sent after its deadline; return whether that was necessary.

        Bytes in the socket's buffer cannot be taken back. So the link is ended when the message has
        not left this process completely.
        """
        await asyncio.sleep(0)  # the event loop may write at the end of its turn
        if pending.end <= self._stream.written - self._stream.get_write_buffer_size():
            return False
        self._stream.cut(
            ConnectionError(f"{self._stream.peer} took no more data, and a write's time was over")
        )
        return True

    def _is_blocked(self) -> str:
        return f"{self._stream.peer} takes no messages at present: {self.blocked}"

    # the broker's answers

    def _on_confirmation(self, frame: Any) -> None:
        """Resolve the messages that the broker has confirmed or refused.

        A returned message has its error already, and the confirmation changes nothing.
        """
        method, tag = frame.method, frame.method.delivery_tag
        tags = [tag]
        if method.multiple:  # in order of tags: confirmed ones stand first
            tags = list(takewhile(lambda older: older <= tag, self._pending))
        for each in tags:
            pending = self._pending.pop(each, None)
            if pending is None:
                continue
            if isinstance(method, spec.Basic.Ack):
                resolve(pending.future)
            else:
                self._refuse(
                    pending, RefusedError("the broker refused the message; the queue may be full")
                )

    def _on_return(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """Refuse a message that no queue takes. The broker returns the message before confirming
        it.
        """
        route = _Route(_text(method.exchange), _text(method.routing_key))
        why = f"no queue takes messages for {route}"
        if method.reply_code != _NO_ROUTE:
            why = f"{route}: {method.reply_text}"
        error = RefusedError(why, code=method.reply_code)
        for pending in self._pending.values():
            # A returned message has no number. Equal messages are interchangeable, so the first
            # equal one is taken.
            if (
                pending.returned is None
                and pending.correlation == properties.correlation_id
                and pending.route == route
                and pending.body == body
            ):
                pending.returned = error
                self._refuse(pending, error)
                return

    def _refuse(self, pending: _Pending, error: RefusedError) -> None:
        """Give the error to the waiting caller, and to the question that the message carries."""
        fail(pending.future, error)
        if pending.question in self._answers:
            fail(self._answers[pending.question], error)

    def _on_closed(self, channel: Any, reason: Exception) -> None:
        """Handle a message that the broker refused by closing the channel.

        The link goes on with a new channel.
        """
        if not isinstance(reason, ChannelClosedByBroker) or self._error is not None:
            return  # the link has ended, which is reported elsewhere
        self._channel = None
        self.changed()
        pending, self._pending = list(self._pending.values()), {}
        self._tell(pending, reason.reply_code, str(reason.reply_text))
        self._mending = asyncio.get_running_loop().create_task(self._reopen())

    def _tell(self, pending: list[_Pending], code: int, text: str) -> None:
        """Give all pending callers their errors after the broker has closed the channel.

        The broker does not name the refused message. A text with a size identifies the message by
        its length. Without a size the last message counts as refused. Messages behind the refused
        one were ignored. The outcome of earlier messages is unknown.
        """
        refused = RefusedError(f"the broker refused the message: {text}", code=code)
        first = len(pending) - 1
        if sizes := _TOO_LONG.search(text):
            self._limit = int(sizes[2])
            refused = RefusedError(
                f"a message of {sizes[1]} bytes: the broker takes at most {sizes[2]}", code=code
            )
            first = next(
                (n for n, each in enumerate(pending) if len(each.body) == int(sizes[1])), first
            )
        ignored = RefusedError(
            f"not taken, because one written before it was refused ({refused})", code=code
        )
        unknown = Unconfirmed(
            f"the broker closed the channel ({text}); it may or may not have the message"
        )
        for number, each in enumerate(pending):
            if number < first:
                fail(each.future, unknown)
            else:
                self._refuse(each, refused if number == first else ignored)
        for answer in self._answers.values():
            fail(answer, RefusedError(f"the answer is lost: {text}", code=code))

    async def _reopen(self) -> None:
        """Open another channel after a refusal; cut the link where that fails."""
        try:
            async with asyncio.timeout(_REOPEN_S):
                await self.open()
        except Exception as error:
            self._stream.cut(
                ConnectionError(f"the channel for writing could not be opened again: {error}")
            )

    # questions

    async def request(self, body: bytes, deadline: Deadline) -> Delivery:
        """Publish with RabbitMQ's direct reply queue, and return the answer.

        TimeoutError when no answer comes.
        """
        self._asked += 1
        question = str(self._asked)
        route, properties = (
            self._own_route(),
            self._with(reply_to=_REPLY_QUEUE, correlation_id=question),
        )
        answer: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        self._answers[question] = answer
        pending: _Pending | None = None
        try:
            async with asyncio.timeout(deadline.timeout()):
                await self._listen()
                pending = await self._send(body, route, properties, question, deadline)
                if pending is not None:
                    pending.future.add_done_callback(_look_at)
                return await answer
        except OperationTimeout:
            raise
        except TimeoutError:
            if pending is not None:
                await self._keep_back(pending)
            raise TimeoutError(
                f"no answer to the request with {route} in the time allowed"
            ) from None
        except AMQPError as error:
            if self._error is not None:
                raise ConnectionError(str(self._error)) from None
            raise RefusedError(f"the broker has no reply queue for us: {error}") from None
        finally:
            del self._answers[question]
            _look_at(answer)

    async def _listen(self) -> None:
        """Subscribe to answers, once for each channel.

        RabbitMQ wants the channel that publishes the questions.
        """
        async with self._turn:
            await self._go.wait()
            if self._error is not None:
                raise ConnectionError(str(self._error))
            if not self._asking:
                await ask(self._channel.basic_consume, _REPLY_QUEUE, self._on_answer, auto_ack=True)
                self._asking = True

    def _on_answer(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """Hand an answer to its question; a late answer is dropped."""
        answer = self._answers.get(str(properties.correlation_id))
        if answer is not None:
            resolve(answer, delivery(method, properties, body, settled=True))


def _as_read(value: str | bytes | None) -> str | bytes | None:
    """Return a correlation id as a returned message carries it: text where it is UTF-8."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode(errors="replace")


def _look_at(future: asyncio.Future[Any]) -> None:
    """Mark the error of a future as seen: the caller gets it in another way."""
    if future.done() and not future.cancelled():
        future.exception()

"""MQTT 3.1.1 and 5 (`mqtt`, `mqtts`, `ws+mqtt`, `wss+mqtt`) on paho-mqtt.

Docs/mqtt.md is the reference.

This module holds the life of a link: it connects, logs in, subscribes, and reports the end. Its
neighbours: `plan` (what an address asks for), `login`, `client` (how paho is used), `session` (what
outlives a link), `subscriptions`, `intake` (messages that wait for room), `acknowledgements`,
`leftovers` (subscriptions of an earlier run), `writer`, `questions` (requests), `envelope`,
`errors` (the broker's reasons in sentences).

A QoS 2 message is handed over when it arrives, and PUBREC goes out when a reader has had it. Until
then the broker keeps the message and sends it again after a broken link. Later copies are
recognised by the packet id. So a reader gets each message exactly once, as long as the worker
lives.

Everything runs on the event loop. The bytes come from a tcp, tls or ws driver, which calls
`readable`; paho then calls the `_on_...` methods.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, ClassVar

from paho.mqtt.reasoncodes import ReasonCode

from trunkline.actors.driver import Delivery, Ending, Outgoing, Overflow, Sink, StreamDriver
from trunkline.actors.drivers.mqtt import errors
from trunkline.actors.drivers.mqtt.acknowledgements import Acknowledgements
from trunkline.actors.drivers.mqtt.client import Client, PahoSocket
from trunkline.actors.drivers.mqtt.envelope import (
    addressed_properties,
    delivery_of,
    own_properties,
    written_properties,
)
from trunkline.actors.drivers.mqtt.intake import PACKET_IDS, Intake
from trunkline.actors.drivers.mqtt.leftovers import Leftovers
from trunkline.actors.drivers.mqtt.login import check_limits, goodbye, login_options
from trunkline.actors.drivers.mqtt.packet import Publish, Unreadable
from trunkline.actors.drivers.mqtt.plan import Plan, no_target
from trunkline.actors.drivers.mqtt.questions import Questions
from trunkline.actors.drivers.mqtt.session import Session, session_of
from trunkline.actors.drivers.mqtt.subscriptions import Subscriptions, fail_future
from trunkline.actors.drivers.mqtt.writer import Writer
from trunkline.actors.net import dialer, tls_alerts
from trunkline.actors.net.liveness import Traffic
from trunkline.actors.net.servers import first_that_opens
from trunkline.address import Address
from trunkline.deadline import Deadline
from trunkline.errors import OperationTimeout, RefusedError, Unsupported

__all__ = ["MqttDriver"]

_TICK_S = 0.5
_FEW_KEPT = (
    "{peer} speaks MQTT 3.1.1 here: of a kept session it sends only some messages (20 as a rule) before they "
    "are read, and drops what is over its own limit (often 1000) while the strategy is busy; give version=5"
)
_PACKET_HEAD = 12
"""The most bytes of a PUBLISH around topic, properties and payload."""


class MqttDriver(StreamDriver):
    """A link to a broker: the first server of the address that accepts the connection."""

    schemes: ClassVar[tuple[str, ...]] = ("mqtt", "mqtts", "ws+mqtt", "wss+mqtt")
    overflow: ClassVar[Overflow] = Overflow.DROP_OLDEST
    confirms: ClassVar[bool] = True
    extra: ClassVar[str | None] = "mqtt"
    addressing: ClassVar[frozenset[str]] = frozenset(
        ("topic", "headers", "expiry_ms", "reply_to", "correlation", "answers")
    )

    def __init__(self, address: Address, sink: Sink) -> None:
        super().__init__(address, sink)
        self._plan = Plan()
        self._session: Session = session_of(address)
        self._socket: PahoSocket | None = None
        self._client: Client | None = None
        self._greeting: asyncio.Future[tuple[int, Any]] | None = None
        """The broker's answer to the login: 0 or a reason, and the broker's properties (MQTT 5)."""
        self._over = False
        self._reason: BaseException | None = None
        """Why the link is over; None for an open link, or for a plain end."""
        self._tick: asyncio.TimerHandle | None = None
        self._looks_while_throttled = 0
        self._max_size = int(address.option("max_size"))
        self._intake = Intake(sink, int(address.option("buffer")))
        self._acknowledgements = Acknowledgements(self._session)
        self._questions = Questions(self._session)
        self._subscriptions: Subscriptions | None = None
        self._writer: Writer | None = None
        self._leftovers: Leftovers | None = None

    @classmethod
    def overflow_for(cls, address: Address) -> Overflow:
        return Overflow.BACK_PRESSURE if Plan.promises(address) else Overflow.DROP_OLDEST

    @classmethod
    def redelivers(cls, address: Address) -> bool:
        return Plan.promises(address) and not Plan.is_clean(address)

    @classmethod
    def acknowledges(cls, address: Address) -> bool:
        """Whether messages are acknowledged: QoS 1 and 2 are, also in a session that ends with the
        link.
        """
        return Plan.promises(address)

    @property
    def peer(self) -> str:
        return self._socket.peer if self._socket is not None else super().peer

    # opening

    async def open(self, deadline: Deadline) -> None:
        """Try the servers of the address until a link opens, then hand over the messages that came
        meanwhile.
        """
        self._plan = Plan.of(self.address)
        servers = self.address.hosts or ((self.address.host or "", self.address.port),)
        # The server that accepted last comes first: it may have kept the session.
        places = [(self._session.server + turn) % len(servers) for turn in range(len(servers))]

        async def attempt(place: int, share: Deadline) -> int:
            host, port = servers[place]
            await self._attempt(place, host, port or 1883, share)
            return place

        self._session.server = await first_that_opens(places, attempt, deadline)
        self._intake.is_open = True
        self._deliver()
        if self._over:  # ended meanwhile: the sink could not be told before
            asyncio.get_running_loop().call_soon(self.sink.lost, self._reason)
        if self._plan.keeps_few and not self._session.warned:
            self._session.warned = True
            self.warn(_FEW_KEPT.format(peer=self.peer))

    async def _attempt(self, place: int, host: str, port: int, deadline: Deadline) -> None:
        """Connect to one server. A failure closes the connection again."""
        self._over, self._reason, self._client = False, None, None
        self._writer, self._subscriptions = None, None
        self._acknowledgements.end_link()
        self._questions.begin_link()
        self._intake.begin_link()
        self._greeting = asyncio.get_running_loop().create_future()
        self._socket = PahoSocket(self.address, host, port, self)
        try:
            await self._socket.open(deadline)
            subscriptions = await self._log_in(self._socket, place, deadline)
            await subscriptions.subscribe_to_own(deadline)
        except BaseException:
            with contextlib.suppress(Exception):
                await asyncio.shield(self._hang_up(Ending.LOST))
            raise

    async def _log_in(self, sock: PahoSocket, place: int, deadline: Deadline) -> Subscriptions:
        """Log in and return the subscriptions of the link. Raises DialError or FatalError."""
        plan = self._plan
        client = self._client = Client(sock, plan, self._session)
        self._acknowledgements.begin_link(client, sock)
        subscriptions = self._subscriptions = Subscriptions(
            client, plan, self._session, self.peer, self.warn
        )
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_unsubscribe = self._on_subscribe, self._on_unsubscribe
        client.on_arrival, client.on_unreadable = self._on_arrival, self._on_unreadable
        self._leftovers = Leftovers(
            plan,
            self._session,
            lambda old: client.unsubscribe(old)[1],
            self._intake.add,
            self._leave_out,
        )
        client.on_release, client.on_too_big = self._session.released, self._on_too_big
        if plan.qos:
            client.on_publish = self._on_publish
        user, password = plan.login(self.address, place)
        if user is not None or password is not None:
            client.username_pw_set(user or "", password)
        if plan.will_topic is not None:
            client.will_set(plan.will_topic, plan.will_payload, plan.will_qos, plan.will_retain)
        client.connect("over our socket", 1, plan.keep_alive, **login_options(plan, self._session))
        assert self._greeting is not None
        # A broker that never repeats a message has no use for acknowledgements after reading. It
        # would only send slowly, and drop messages over its own limit while the strategy is busy.
        acks_early = bool(plan.qos) and not plan.persistent
        self._intake.set_limits(has_limit=bool(plan.qos), v5=plan.v5, acks_early=acks_early)
        async with dialer.within(deadline, f"{self.peer} did not answer the MQTT login"):
            code, found = await self._greeting
        if code:
            raise errors.login_refused(self.peer, code, _text(found))
        check_limits(plan, found, self.peer)
        self._writer = Writer(client, plan, self._session, self.peer, found, self._end)
        self._keep_alive()
        return subscriptions

    # the end

    async def close(self) -> None:
        await self.end(Ending.CLOSED)

    async def end(self, ending: Ending) -> None:
        """Close the link. DISCONNECT is sent only where the program has closed the connection.

        A broker that reads no DISCONNECT publishes the will. In MQTT 5 a DISCONNECT can ask for the
        will, and can also end the session.
        """
        was_open, self._intake.is_open = self._intake.is_open, False
        client = self._client
        if was_open and not self._over and client is not None and self._socket is not None:
            if ending is Ending.CLOSED or (ending is Ending.ABANDONED and self._plan.v5):
                client.disconnect(*goodbye(self._plan, with_will=ending is Ending.ABANDONED))
            while client.want_write() and client.socket() is not None and not self._over:
                await self._socket.drain()
                if self._socket.is_busy:
                    break
                client.loop_write()
        await self._hang_up(ending)

    async def _hang_up(self, ending: Ending) -> None:
        """Mark the link as over and close the socket."""
        self._end(ConnectionError("the connection was closed here"))
        if self._socket is not None:
            await self._socket.shut(ending)

    def lost(self, reason: BaseException | None) -> None:
        """Handle the report of the socket or of paho that the link is gone."""
        self._end(reason)

    def _end(self, reason: BaseException | None) -> None:
        """Mark the link as over, and end all waiting calls."""
        if self._over:
            return
        self._over, self._reason = True, reason
        self._acknowledgements.end_link()
        self._intake.is_over = True
        if self._tick is not None:
            self._tick.cancel()
        if self._writer is not None:
            self._writer.close()
        error = self._opening_error(reason)
        fail_future(self._greeting, error)
        if self._subscriptions is not None:
            self._subscriptions.fail(error)
        self._questions.fail()
        if self._intake.is_open:
            self._intake.is_paused = False
            self._deliver()
            self.sink.lost(reason)

    def _opening_error(self, reason: BaseException | None) -> BaseException:
        """Return the error of an opening that the end of the connection has broken off."""
        answered = self._greeting is not None and self._greeting.done()
        advice = ""
        if self.address.tls:
            advice = tls_alerts.if_it_wants_a_certificate(self.address.option("certfile"))
        return errors.closed_while_opening(self.peer, reason, answered=answered, advice=advice)

    # writing

    def would_wait(self, size: int) -> bool:
        return self._writer is None or self._writer.would_wait(size)

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        """Write to the topic of the address; see `Writer.publish`."""
        writer, topic = self._living_writer(), self._write_topic()
        payload = data.encode() if isinstance(data, str) else data
        taken = await writer.publish(topic, payload, own_properties(self._plan), deadline)
        return len(payload) if taken else 0

    async def send_to(
        self, data: str | bytes | None, outgoing: Outgoing, deadline: Deadline
    ) -> int:
        """Write to the message's own topic; see `Writer.publish`."""
        writer = self._living_writer()
        topic = self._write_topic() if outgoing.topic is None else outgoing.topic
        for text in filter(None, (outgoing.topic, outgoing.reply_to)):
            if (why := no_target(text)) is not None:
                raise RefusedError(f"{text[:50]!r} is no topic to write to: {why}")
        payload = data.encode() if isinstance(data, str) else data or b""
        properties = addressed_properties(self._plan, outgoing)
        around = None if properties is None else _PACKET_HEAD + len(properties.pack())
        taken = await writer.publish(topic, payload, properties, deadline, around)
        return len(payload) if taken else 0

    async def request(self, data: str | bytes, deadline: Deadline) -> Delivery:
        """Send a question and wait for its answer. OperationTimeout when none comes by the
        deadline.
        """
        writer = self._living_writer()
        if not self._plan.v5 or self._subscriptions is None:
            raise Unsupported(
                "a request over MQTT needs version=5, whose messages say where the answer goes"
            )
        topic = self._write_topic()
        payload = data.encode() if isinstance(data, str) else data
        try:
            with self._questions.asked() as (number, answer):
                async with asyncio.timeout(deadline.timeout()):
                    properties = written_properties(self._plan)
                    properties.ResponseTopic = await self._questions.answer_topic(
                        self._subscriptions, deadline
                    )
                    properties.CorrelationData = number
                    await writer.publish(topic, payload, properties, Deadline(None))
                    return await answer
        except TimeoutError:
            raise OperationTimeout(f"nobody answered on {topic} in the time allowed") from None

    def _write_topic(self) -> str:
        """Return the topic to write to; RefusedError where the address names none."""
        if self._plan.write_topic is None:
            topics = ",".join(self._plan.topics)
            raise Unsupported(f"topic={topics} is for reading only: give write_topic=... to write")
        return self._plan.write_topic

    def _living_writer(self) -> Writer:
        """Return the writer of the link; ConnectionError where the link is over."""
        if self._over or self._writer is None:
            raise ConnectionError("the link is gone")
        return self._writer

    # reading

    def pause(self) -> None:
        self._intake.is_paused = True

    def resume(self) -> None:
        self._intake.is_paused = False
        self._deliver()

    def settle(self, tokens: Sequence[Any]) -> None:
        """Acknowledge read messages, and use the room for waiting messages."""
        if not self._intake.acks_early:
            self._acknowledgements.send(tokens)
        if not self._acknowledgements.has_link:
            return
        self._intake.note_read(len(tokens))
        if self._intake.held_count:
            asyncio.get_running_loop().call_soon(
                self._deliver
            )  # later: the caller is changing its buffer now

    def _deliver(self) -> None:
        """Hand over messages as far as the buffer has room, and read on where reading had
        stopped.
        """
        if early := self._intake.deliver():
            self._acknowledgements.send(early)
        if self._intake.may_read_on:
            self._read_on()

    async def ping(self) -> None:
        if not self._over and self._client is not None:
            self._client.ping()

    def traffic(self) -> Traffic | None:
        """Return the socket's figures, with the bytes that wait in paho."""
        found = self._socket.traffic() if self._socket is not None else None
        if found is None:
            return None
        # While the link is not read because the strategy is busy, silence says nothing about the
        # broker. Each look then counts as a received byte.
        self._looks_while_throttled += self._intake.is_throttled
        kept = self._client.unsent() if self._client is not None else 0
        return found._replace(
            received=found.received + self._looks_while_throttled,
            sent=found.sent + kept,
            waiting=found.waiting + kept,
            data=None,  # a WebSocket message may carry an answer to a ping
        )

    def _keep_alive(self) -> None:
        self._tick = asyncio.get_running_loop().call_later(_TICK_S, self._keep_alive)
        self._look_after()

    def _look_after(self) -> None:
        """Send a ping in time: the broker must hear from this client within the keepalive."""
        if not self._over and self._client is not None:
            self._client.ping_when_quiet()

    # Reports of the socket (`client.Owner`).

    def readable(self) -> None:
        """Let paho read the bytes that have come, as long as there is room for messages."""
        client, sock = self._client, self._socket
        if client is None or sock is None or self._over:
            return
        try:
            while self._may_read(client, sock):
                client.loop_read()
                if self._intake.has_too_much and self._intake.is_open:
                    self._deliver()
                    self._throttle(sock)
        except Exception as error:
            self._end(ConnectionError(f"{self.peer} sent what cannot be read: {error}"))
        self._deliver()
        self.writable()

    def _may_read(self, client: Client, sock: PahoSocket) -> bool:
        """Whether paho may read another packet. ValueError for a broker that ignores the protocol's
        limit.
        """
        if self._intake.has_too_many:
            raise ValueError(f"more than {PACKET_IDS} messages that nobody has acknowledged")
        return sock.has_bytes and client.socket() is not None and not self._intake.is_throttled

    def _throttle(self, sock: PahoSocket) -> None:
        """Stop reading where too much is left after the buffer has taken its part."""
        if self._intake.has_too_much and not self._over:
            self._intake.is_throttled = True
            sock.pause()

    def _read_on(self) -> None:
        """Read again after a stop."""
        self._intake.is_throttled = False
        if self._over or self._client is None or self._socket is None:
            return
        self._socket.resume()
        asyncio.get_running_loop().call_soon(self.readable)  # for bytes that have come already

    def writable(self) -> None:
        """Let paho send what waits, and then the writer."""
        client = self._client
        if client is None or self._over:
            return
        if client.want_write():
            client.loop_write()
        if self._writer is not None:
            self._writer.advance()

    def warn(self, text: str) -> None:
        self.sink.warn(text)

    # Callbacks of paho. paho holds a lock meanwhile, so packets sent from a callback go out
    # afterwards.

    def _on_connect(self, client: Any, data: Any, flags: Any, code: ReasonCode, found: Any) -> None:
        """Handle the broker's answer to the login."""
        if not code.is_failure:
            self._session.begin(resumed=flags.session_present)
            client.ping_at_least_every(self._plan.keep_alive)
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_result((code.value if code.is_failure else 0, found))

    def _on_subscribe(
        self, client: Any, data: Any, number: int, codes: list[ReasonCode], found: Any
    ) -> None:
        if self._subscriptions is not None:
            self._subscriptions.note_answer(number, codes)

    def _on_publish(
        self, client: Any, data: Any, number: int, code: ReasonCode, found: Any
    ) -> None:
        if self._writer is not None:
            self._writer.confirmed(number, code.value, _text(found))

    def _on_disconnect(
        self, client: Any, data: Any, flags: Any, code: ReasonCode, found: Any
    ) -> None:
        """Handle the end of the link, which paho or the broker has found."""
        if flags.is_disconnect_packet_from_server:
            self._end(errors.said_goodbye(self.peer, code.value, _text(found)))
        elif code.value == errors.PROTOCOL_ERROR:
            self._end(ConnectionError(f"{self.peer} sent what is no MQTT that is expected here"))
        else:
            self._end(None if self._over else ConnectionError("the link broke"))

    def _on_arrival(self, message: Publish) -> None:
        """Hand a message on: to a question, to the intake, or to the search for old
        subscriptions.
        """
        qos, number = message.qos, message.number
        if len(message.payload) > self._max_size:
            self._on_too_big(number, qos, len(message.payload))
            return
        if message.unread:
            names = ", ".join(message.unread)
            self.warn(f"properties of a message could not be read and were left out: {names}")
        delivery = delivery_of(message, self._session)
        if qos and self._acknowledgements.repeat_if_known(*delivery.token):
            return
        if self._questions.is_answer(delivery):
            if delivery.token is not None:
                self._acknowledgements.send([delivery.token])
            self._questions.note_answer(delivery)
        elif self._leftovers is None or self._leftovers.is_ours(message.topic):
            self._intake.add(delivery)
        else:
            self._leftovers.arrived(delivery)

    def _leave_out(self, delivery: Delivery) -> None:
        """Acknowledge and drop a message of a subscription that the address does not ask for."""
        self.warn(
            f"{self.peer} kept a subscription of an earlier run with this client_id, for {delivery.topic}: it"
            " is ended, and its messages are left out"
        )
        if delivery.token is not None:
            self._acknowledgements.send([delivery.token])

    def _on_unsubscribe(
        self, client: Any, data: Any, number: int, codes: list[ReasonCode], found: Any
    ) -> None:
        if self._leftovers is not None:
            self._leftovers.answered(number, [code.value for code in codes])

    def _on_unreadable(self, error: Unreadable) -> None:
        """Discard an unreadable message for good, as with a message over the limit."""
        self.warn(f"{self.peer} sent {error}: it was discarded")
        self.sink.dropped(1)
        if error.qos:
            self._acknowledgements.send([(error.number, error.qos, 0)])

    def _on_too_big(self, number: int, qos: int, size: int) -> None:
        """Discard a too big message for good: unacknowledged, the message would come again for
        ever.
        """
        if self._acknowledgements.repeat_if_known(number, qos, size):
            return
        self.warn(f"a message of {size} bytes was discarded: it is over the option max_size")
        self.sink.dropped(1)
        if qos:
            self._acknowledgements.send([(number, qos, size)])


def _text(found: Any) -> str:
    """Return the broker's own words; empty for none."""
    return str(getattr(found, "ReasonString", ""))

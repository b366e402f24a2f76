"""MQTT 3.1.1 and 5 (`mqtt`, `mqtts`, `ws+mqtt`, `wss+mqtt`) with paho-mqtt; `docs/mqtt.md` is its page.
Long because a link is told from its login to its end in one place.

`mqtt_client` is how paho is driven, `mqtt_envelope` what a message brings with it, `mqtt_outbox` what is
written, `mqtt_settings` what an address asks for, `mqtt_session` what outlives a link, `mqtt_words` the
broker's reasons in sentences.

A QoS 2 message is handed over when it arrives, and PUBREC goes out when a reader has it. Until then the
broker keeps it and sends it again after a broken link; afterwards its copies are known by their packet id.
So a reader gets each of them exactly once, as long as the worker lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import uuid
from collections.abc import Sequence
from math import ceil
from typing import Any, ClassVar

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from trunkline.actors.driver import Delivery, Ending, FatalError, Outgoing, Overflow, Sink, StreamDriver
from trunkline.actors.drivers.mqtt import words
from trunkline.actors.drivers.mqtt.client import Client, PahoSocket
from trunkline.actors.drivers.mqtt.envelope import delivery_of
from trunkline.actors.drivers.mqtt.leftovers import Leftovers
from trunkline.actors.drivers.mqtt.outbox import Outbox
from trunkline.actors.drivers.mqtt.packet import Publish, Unreadable
from trunkline.actors.drivers.mqtt.session import Session, session_of
from trunkline.actors.drivers.mqtt.settings import Settings, no_target, user_properties
from trunkline.actors.net import dialer, tls_alerts
from trunkline.actors.net.liveness import Traffic
from trunkline.actors.net.servers import first_that_opens
from trunkline.address import Address
from trunkline.deadline import Deadline
from trunkline.errors import DialError, OperationTimeout, RefusedError, Unsupported

__all__ = ["MqttDriver"]

_HELD = 2000
"""QoS 0 messages kept while the buffer of a qos=1 or qos=2 connection is full."""
_IDS = 65_535
"""So many packet ids there are, and no more messages that are not acknowledged."""
_MOST_BYTES = 64 * 1024 * 1024
"""Messages of so many bytes wait here for room in the buffer before nothing more is read."""
_TICK_S = 0.5
_FEW_KEPT = (
    "{peer} speaks MQTT 3.1.1 here: of a kept session it sends only some messages (20 as a rule) before they "
    "are read, and drops what is over its own limit (often 1000) while the strategy is busy; give version=5"
)
_PACKET_HEAD = 12
"""Bytes of a PUBLISH around topic, properties and payload, at most."""
_LONGEST_EXPIRY_S = (1 << 32) - 1


class MqttDriver(StreamDriver):
    """One link to one broker, the first of several that takes us."""

    schemes: ClassVar[tuple[str, ...]] = ("mqtt", "mqtts", "ws+mqtt", "wss+mqtt")
    overflow: ClassVar[Overflow] = Overflow.DROP_OLDEST
    confirms: ClassVar[bool] = True
    extra: ClassVar[str | None] = "mqtt"
    addressing: ClassVar[frozenset[str]] = frozenset(
        ("topic", "headers", "expiry_ms", "reply_to", "correlation", "answers")
    )

    def __init__(self, address: Address, sink: Sink) -> None:
        super().__init__(address, sink)
        self._settings = Settings()
        self._session: Session = session_of(address)
        self._socket: PahoSocket | None = None
        self._client: Client | None = None
        self._greeting: asyncio.Future[tuple[int, Any]] | None = None
        self._subscribing: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._opened = False
        self._over = False
        self._reason: BaseException | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._arrived: list[Delivery] = []
        self._held: list[Delivery] = []
        self._paused = False
        self._buffer = int(address.option("buffer"))
        self._most = max(_HELD, 2 * self._buffer)
        """So many messages of QoS 1 and 2 wait here for room in the buffer before nothing more is read."""
        self._waiting = 0
        """How many do."""
        self._waiting_bytes = 0
        self._acks_early = False
        """Messages are acknowledged when the buffer has taken them, not when a reader has: see `_log_in`."""
        self._throttled = False
        self._looks = 0
        self._max_size = int(address.option("max_size"))
        self._unread = 0
        """Messages handed over and not acknowledged."""
        self._outbox: Outbox | None = None
        self._leftovers: Leftovers | None = None
        self._answers_come = False
        """The topic of answers is subscribed to, on this link."""
        self._asking = asyncio.Lock()
        self._questions: dict[bytes, asyncio.Future[Delivery]] = {}

    @classmethod
    def overflow_for(cls, address: Address) -> Overflow:
        return Overflow.BACK_PRESSURE if Settings.promises(address) else Overflow.DROP_OLDEST

    @classmethod
    def redelivers(cls, address: Address) -> bool:
        return Settings.promises(address) and not Settings.is_clean(address)

    @classmethod
    def acknowledges(cls, address: Address) -> bool:
        """QoS 1 and 2, also in a session that ends with the link."""
        return Settings.promises(address)

    @property
    def peer(self) -> str:
        return self._socket.peer if self._socket is not None else super().peer

    # opening

    async def open(self, deadline: Deadline) -> None:
        self._settings = Settings.of(self.address)
        servers = self.address.hosts or ((self.address.host or "", self.address.port),)
        # the one that was taken last comes first: it may have kept the session
        places = [(self._session.server + turn) % len(servers) for turn in range(len(servers))]

        async def attempt(place: int, share: Deadline) -> int:
            host, port = servers[place]
            await self._attempt(place, host, port or 1883, share)
            return place

        self._session.server = await first_that_opens(places, attempt, deadline)
        self._opened = True
        self._deliver()
        if self._over:  # meanwhile, which was no news before there was a link
            asyncio.get_running_loop().call_soon(self.sink.lost, self._reason)
        if self._settings.keeps_few and not self._session.warned:
            self._session.warned = True
            self.warn(_FEW_KEPT.format(peer=self.peer))

    async def _attempt(self, place: int, host: str, port: int, deadline: Deadline) -> None:
        """One connection to one server, closed again unless it succeeds."""
        self._over, self._reason, self._client, self._outbox = False, None, None, None
        self._answers_come = False
        # What another server has sent is none of this one's: its packet ids must not be acknowledged here.
        self._arrived, self._held, self._waiting, self._unread = [], [], 0, 0
        self._waiting_bytes = 0
        self._greeting = asyncio.get_running_loop().create_future()
        self._socket = PahoSocket(self.address, host, port, self)
        try:
            await self._socket.open(deadline)
            await self._log_in(self._socket, place, deadline)
            await self._subscribe_own(deadline)
        except BaseException:
            with contextlib.suppress(Exception):
                await asyncio.shield(self._hang_up(Ending.LOST))
            raise

    async def _log_in(self, sock: PahoSocket, place: int, deadline: Deadline) -> None:
        settings = self._settings
        client = self._client = Client(sock, settings, self._session)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_unsubscribe = self._on_subscribe, self._on_unsubscribe
        client.on_arrival, client.on_unreadable = self._on_arrival, self._on_unreadable
        self._leftovers = Leftovers(
            settings, self._session, lambda old: client.unsubscribe(old)[1], self._keep, self._leave_out
        )
        client.on_release, client.on_too_big = self._session.released, self._on_too_big
        if settings.qos:
            client.on_publish = self._on_publish
        user, password = settings.login(self.address, place)
        if user is not None or password is not None:
            client.username_pw_set(user or "", password)
        if settings.will_topic is not None:
            client.will_set(
                settings.will_topic, settings.will_payload, settings.will_qos, settings.will_retain
            )
        client.connect("over our socket", 1, settings.keep_alive, **self._v5_login())
        assert self._greeting is not None
        # A broker that never sends again has no use for acknowledgements that wait for a reader: it would
        # only send slowly, and drop what is over its own limit while the strategy is busy.
        self._acks_early = bool(settings.qos) and not settings.persistent
        self._most = _IDS if settings.v5 else max(_HELD, 2 * self._buffer)
        async with dialer.within(deadline, f"{self.peer} did not answer the MQTT login"):
            code, found = await self._greeting
        if code:
            raise words.login_refused(self.peer, code, _text(found))
        self._check_limits(found)
        self._outbox = Outbox(client, settings, self._session, self.peer, found, self._end)
        self._keep_alive()

    def _v5_login(self) -> dict[str, Any]:
        settings = self._settings
        if not settings.v5:
            return {}
        found = _properties(PacketTypes.CONNECT)
        if settings.expiry:
            found.SessionExpiryInterval = settings.expiry
        found.ReceiveMaximum = settings.receive_maximum
        found.MaximumPacketSize = settings.largest
        # A `clean` connection begins afresh; after an outage it goes on where it was.
        clean = settings.clean and not (self._session.begun and settings.persistent)
        return {"clean_start": clean, "properties": found}

    def _check_limits(self, found: Any) -> None:
        """What a broker that speaks MQTT 5 says of itself."""
        settings = self._settings
        if not settings.v5 or settings.write_topic is None:
            return
        highest = getattr(found, "MaximumQoS", 2)
        if settings.qos > highest:
            raise FatalError(f"{self.peer} takes messages of QoS {highest} at most; give qos={highest}")
        if settings.retain and not getattr(found, "RetainAvailable", 1):
            raise FatalError(f"{self.peer} keeps no retained messages; leave retain out")

    async def _subscribe_own(self, deadline: Deadline) -> None:
        """To the topics of the address; not to those that others of them include."""
        settings, covered = self._settings, self._settings.covered
        if covered and self._session.inherited and self._client is not None:
            self._client.unsubscribe(list(covered))  # of an earlier run
        topics = [topic for topic in dict.fromkeys(settings.topics) if topic not in covered]
        own = SubscribeOptions(
            settings.qos, noLocal=settings.no_local, retainHandling=settings.retain_handling
        )
        await self._subscribe(topics, deadline, own)

    async def _subscribe(
        self, topics: Sequence[str], deadline: Deadline, options: SubscribeOptions | None = None
    ) -> None:
        """Returns when the broker has confirmed it. Raises DialError naming the topic."""
        if not topics:
            return
        qos, client = self._settings.qos, self._client
        if client is None or self._over:
            raise self._opening_error(self._reason)
        filters: Any = [(topic, qos) for topic in topics]
        if self._settings.v5:
            filters = [(topic, options or SubscribeOptions(qos)) for topic in topics]
        _, number = client.subscribe(filters)
        assert number is not None
        answer = self._subscribing[number] = asyncio.get_running_loop().create_future()
        try:
            async with dialer.within(deadline, f"{self.peer} did not confirm the subscription"):
                codes = await answer
        finally:
            del self._subscribing[number]
        if len(codes) != len(topics):
            raise DialError(f"{self.peer} confirmed {len(codes)} of {len(topics)} topics: some are not read")
        for topic, code in zip(topics, codes, strict=True):
            if code.is_failure:
                raise words.subscription_refused(self.peer, topic, code.value)
            if code.value < qos:
                self.warn(f"{self.peer} sends {topic} with QoS {code.value} at most, not {qos}")

    # the end

    async def close(self) -> None:
        await self.end(Ending.CLOSED)

    async def end(self, ending: Ending) -> None:
        """DISCONNECT only where the program closed the connection: a broker that reads none publishes the
        will. MQTT 5 can say both in its DISCONNECT, the end of the session too."""
        opened, self._opened = self._opened, False
        client = self._client
        if opened and not self._over and client is not None and self._socket is not None:
            if ending is Ending.CLOSED or (ending is Ending.ABANDONED and self._settings.v5):
                self._disconnect(client, with_will=ending is Ending.ABANDONED)
            while client.want_write() and client.socket() is not None and not self._over:
                await self._socket.drain()
                if self._socket.is_busy:
                    break
                client.loop_write()
        await self._hang_up(ending)

    def _disconnect(self, client: Client, *, with_will: bool) -> None:
        settings = self._settings
        if not settings.v5:
            client.disconnect()
            return
        found = None
        if settings.clean and settings.session_expiry is None and settings.expiry:
            found = _properties(PacketTypes.DISCONNECT)
            found.SessionExpiryInterval = 0  # it was kept for an outage, and this is none
        code = words.WITH_WILL if with_will else 0
        client.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=code), found)

    async def _hang_up(self, ending: Ending) -> None:
        self._end(ConnectionError("the connection was closed here"))
        if self._socket is not None:
            await self._socket.shut(ending)

    def lost(self, reason: BaseException | None) -> None:
        """The socket says that the link is gone, or paho does."""
        self._end(reason)

    def _end(self, reason: BaseException | None) -> None:
        """The link is over: tell all who wait."""
        if self._over:
            return
        self._over, self._reason = True, reason
        if self._tick is not None:
            self._tick.cancel()
        if self._outbox is not None:
            self._outbox.close()
        for answer in (self._greeting, *self._subscribing.values()):
            _fail(answer, self._opening_error(reason))
        for question in self._questions.values():
            _fail(question, ConnectionError("the link is gone; the request may have arrived"))
        if self._opened:
            self._paused = False
            self._deliver()
            self.sink.lost(reason)

    def _opening_error(self, reason: BaseException | None) -> BaseException:
        if isinstance(reason, DialError):
            return reason
        alert = tls_alerts.in_words(reason)
        if alert is not None:
            return FatalError(f"{self.peer} {alert}")
        why = f": {reason}" if reason is not None else ""
        if self._greeting is not None and self._greeting.done():
            return DialError(f"{self.peer} closed the connection{why}")
        return DialError(
            f"{self.peer} closed the connection instead of answering the MQTT login{why}; check the port, "
            "the scheme and version="
            + (
                tls_alerts.if_it_wants_a_certificate(self.address.option("certfile"))
                if self.address.tls
                else ""
            )
        )

    # writing

    def would_wait(self, size: int) -> bool:
        return self._outbox is None or self._outbox.would_wait(size)

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        outbox, topic = self._living(), self._write_topic()
        payload = data.encode() if isinstance(data, str) else data
        taken = await outbox.publish(topic, payload, self._own_properties(), deadline)
        return len(payload) if taken else 0

    async def send_to(self, data: str | bytes | None, outgoing: Outgoing, deadline: Deadline) -> int:
        outbox = self._living()
        topic = self._write_topic() if outgoing.topic is None else outgoing.topic
        for text in filter(None, (outgoing.topic, outgoing.reply_to)):
            if (why := no_target(text)) is not None:
                raise RefusedError(f"{text[:50]!r} is no topic to write to: {why}")
        payload = data.encode() if isinstance(data, str) else data or b""
        properties = self._addressed(outgoing)
        around = None if properties is None else _PACKET_HEAD + len(properties.pack())
        taken = await outbox.publish(topic, payload, properties, deadline, around)
        return len(payload) if taken else 0

    def _addressed(self, outgoing: Outgoing) -> Any:
        """The properties of a message that has some of its own."""
        if not self._settings.v5:
            if outgoing.fields() <= {"topic", "answers"}:
                return None
            raise Unsupported(
                "MQTT 3.1.1 messages have a topic alone: give version=5 for headers and the rest"
            )
        found = self._own_properties() or _properties(PacketTypes.PUBLISH)
        try:
            if outgoing.headers is not None:
                found.UserProperty = user_properties(outgoing.headers)
            if outgoing.expiry_ms is not None:
                found.MessageExpiryInterval = min(ceil(outgoing.expiry_ms / 1000), _LONGEST_EXPIRY_S)
            if outgoing.reply_to is not None:
                found.ResponseTopic = outgoing.reply_to
            if outgoing.correlation is not None:
                given = outgoing.correlation
                found.CorrelationData = given.encode() if isinstance(given, str) else given
            found.pack()
        except Exception as error:  # paho's MQTTException has no base of its own
            raise RefusedError(f"the message cannot be sent: {error}") from None
        return found

    def _write_topic(self) -> str:
        if self._settings.write_topic is None:
            topics = ",".join(self._settings.topics)
            raise Unsupported(f"topic={topics} is for reading only: give write_topic=... to write")
        return self._settings.write_topic

    def _own_properties(self) -> Any:
        if not self._settings.headers:
            return None
        found = _properties(PacketTypes.PUBLISH)
        found.UserProperty = list(self._settings.headers)
        return found

    def _living(self) -> Outbox:
        if self._over or self._outbox is None:
            raise ConnectionError("the link is gone")
        return self._outbox

    async def request(self, data: str | bytes, deadline: Deadline) -> Delivery:
        outbox = self._living()
        if not self._settings.v5:
            raise Unsupported("a request over MQTT needs version=5, whose messages say where the answer goes")
        topic = self._write_topic()
        payload = data.encode() if isinstance(data, str) else data
        number = uuid.uuid4().bytes
        answer = self._questions[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(deadline.timeout()):
                properties = self._own_properties() or _properties(PacketTypes.PUBLISH)
                properties.ResponseTopic = await self._subscribed_for_replies(deadline)
                properties.CorrelationData = number
                await outbox.publish(topic, payload, properties, Deadline(None))
                delivery: Delivery = await answer
                return delivery
        except TimeoutError:
            raise OperationTimeout(f"nobody answered on {topic} in the time allowed") from None
        finally:
            del self._questions[number]

    async def _subscribed_for_replies(self, deadline: Deadline) -> str:
        """The topic where answers come, subscribed to with a link's first request. It is the same for all
        links, for a kept session keeps it."""
        async with self._asking:
            topic = self._session.reply_topic = (
                self._session.reply_topic or f"trunkline/reply/{uuid.uuid4().hex}"
            )
            if not self._answers_come:
                await self._subscribe([topic], deadline)
                self._answers_come = True
            return topic

    # reading

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._deliver()

    def settle(self, tokens: Sequence[Any]) -> None:
        if not self._acks_early:
            self._acknowledge(tokens)
        if self._over or self._client is None or self._socket is None:
            return
        self._unread -= len(tokens)
        if self._held:
            asyncio.get_running_loop().call_soon(self._deliver)  # later: the caller is at work on its buffer

    def _acknowledge(self, tokens: Sequence[Any]) -> None:
        if self._over or self._client is None or self._socket is None:
            for number, qos, content in tokens:
                if qos == 2:  # the broker does not hear of it and sends them again, to be known by this
                    self._session.acknowledged(number, qos, content)
            return
        with self._socket.together():
            for number, qos, content in tokens:
                self._session.acknowledged(number, qos, content)
                if qos == 2:
                    self._client.received(number)
                else:
                    self._client.ack(number, qos)

    def _deliver(self) -> None:
        """Hand over what arrived, as far as the buffer has room. The rest is kept here, for the link must go
        on being read: confirmations come over it, too. Of QoS 1 and 2 the broker sends no more than we may
        owe it, and where that is too much the link is not read for a while; of QoS 0 the newest are dropped
        then. Before the link is open nothing is handed over: perhaps another server is tried next."""
        if not self._opened:
            return
        arrived, self._arrived = self._arrived, []
        if self._held or self._paused or len(arrived) > self._room():
            self._hold(arrived)
            room = 0 if self._paused else self._room()
            arrived, self._held = self._held[:room], self._held[room:]
        if arrived:
            owed = [each for each in arrived if each.token is not None]
            self._unread += len(owed)
            self._waiting -= len(owed)
            self._waiting_bytes -= sum(len(each.data) for each in owed)
            self.sink.deliver(arrived)
            if self._acks_early and owed:
                self._acknowledge([each.token for each in owed])
        if self._throttled and self._waiting <= self._most // 2 and self._waiting_bytes <= _MOST_BYTES // 2:
            self._read_on()

    def _room(self) -> int:
        if not self._settings.qos or self._over:
            return sys.maxsize
        return max(0, self._buffer - self._unread)

    def _hold(self, arrived: list[Delivery]) -> None:
        dropped = 0
        for each in arrived:
            if each.token is None and len(self._held) >= _HELD:
                dropped += 1
            else:
                self._held.append(each)
        if dropped:
            self.sink.dropped(dropped)

    async def ping(self) -> None:
        if not self._over and self._client is not None:
            self._client.ping()

    def traffic(self) -> Traffic | None:
        found = self._socket.traffic() if self._socket is not None else None
        if found is None:
            return None
        # While nothing is read, because the strategy is busy, the broker's silence says nothing.
        self._looks += self._throttled
        kept = self._client.unsent() if self._client is not None else 0
        return found._replace(
            received=found.received + self._looks,
            sent=found.sent + kept,
            waiting=found.waiting + kept,
            data=None,  # over WebSocket, what is data there may be a ping's answer here
        )

    def _keep_alive(self) -> None:
        self._tick = asyncio.get_running_loop().call_later(_TICK_S, self._keep_alive)
        self._look_after()

    def _look_after(self) -> None:
        """The broker has to hear of us within the time of the keepalive."""
        if not self._over and self._client is not None:
            self._client.ping_when_quiet()

    # What the socket reports (`mqtt_client.Owner`).

    def readable(self) -> None:
        client, sock = self._client, self._socket
        if client is None or sock is None or self._over:
            return
        try:
            while self._may_read(client, sock):
                client.loop_read()
                if self._has_too_much() and self._opened:
                    self._deliver()
                    self._throttle()
        except Exception as error:
            self._end(ConnectionError(f"{self.peer} sent what cannot be read: {error}"))
        self._deliver()
        self.writable()

    def _may_read(self, client: Client, sock: PahoSocket) -> bool:
        if self._waiting > _IDS:
            raise ValueError(f"more than {_IDS} messages that nobody has acknowledged")
        return sock.has_bytes and client.socket() is not None and not self._throttled

    def _has_too_much(self) -> bool:
        return self._waiting >= self._most or self._waiting_bytes >= _MOST_BYTES

    def _throttle(self) -> None:
        if self._has_too_much() and not self._over and self._socket is not None:
            self._throttled = True
            self._socket.pause()

    def _read_on(self) -> None:
        self._throttled = False
        if self._over or self._client is None or self._socket is None:
            return
        self._socket.resume()
        asyncio.get_running_loop().call_soon(self.readable)  # what had come already

    def writable(self) -> None:
        client = self._client
        if client is None or self._over:
            return
        if client.want_write():
            client.loop_write()
        if self._outbox is not None:
            self._outbox.advance()

    def warn(self, text: str) -> None:
        self.sink.warn(text)

    # What paho reports. It holds a lock meanwhile: what is sent from here goes out afterwards.

    def _on_connect(self, client: Any, data: Any, flags: Any, code: ReasonCode, found: Any) -> None:
        if not code.is_failure:
            self._session.begin(resumed=flags.session_present)
            client.ping_at_least_every(self._settings.keep_alive)
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_result((code.value if code.is_failure else 0, found))

    def _on_subscribe(self, client: Any, data: Any, number: int, codes: list[ReasonCode], found: Any) -> None:
        answer = self._subscribing.get(number)
        if answer is not None and not answer.done():
            answer.set_result(codes)

    def _on_publish(self, client: Any, data: Any, number: int, code: ReasonCode, found: Any) -> None:
        if self._outbox is not None:
            self._outbox.confirmed(number, code.value, _text(found))

    def _on_disconnect(self, client: Any, data: Any, flags: Any, code: ReasonCode, found: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._end(words.said_goodbye(self.peer, code.value, _text(found)))
        elif code.value == words.PROTOCOL_ERROR:
            self._end(ConnectionError(f"{self.peer} sent what is no MQTT that is expected here"))
        else:
            self._end(None if self._over else ConnectionError("the link broke"))

    def _on_arrival(self, message: Publish) -> None:
        qos, number = message.qos, message.number
        if len(message.payload) > self._max_size:
            self._on_too_big(number, qos, len(message.payload))
            return
        if message.unread:
            names = ", ".join(message.unread)
            self.warn(f"properties of a message could not be read and were left out: {names}")
        delivery = delivery_of(message, self._session)
        if qos == 2 and self._client is not None and self._session.is_received(number, delivery.token[2]):
            self._client.received(number)  # a reader has it, and the broker did not hear of that
        elif delivery.topic == self._session.reply_topic:
            self._answered(delivery)
        elif self._leftovers is None or self._leftovers.is_ours(message.topic):
            self._keep(delivery)
        else:
            self._leftovers.arrived(delivery)

    def _keep(self, delivery: Delivery) -> None:
        """Until the buffer has room."""
        if delivery.token is not None:
            self._waiting += 1
            self._waiting_bytes += len(delivery.data)
        self._arrived.append(delivery)

    def _leave_out(self, delivery: Delivery) -> None:
        """A message of a subscription that the address does not ask for."""
        self.warn(
            f"{self.peer} kept a subscription of an earlier run with this client_id, for {delivery.topic}: it"
            " is ended, and its messages are left out"
        )
        if delivery.token is not None:
            self._acknowledge([delivery.token])

    def _on_unsubscribe(
        self, client: Any, data: Any, number: int, codes: list[ReasonCode], found: Any
    ) -> None:
        if self._leftovers is not None:
            self._leftovers.answered(number, [code.value for code in codes])

    def _on_unreadable(self, error: Unreadable) -> None:
        """Discard it, for good, as one that is too big."""
        self.warn(f"{self.peer} sent {error}: it was discarded")
        self.sink.dropped(1)
        if error.qos:
            self._acknowledge([(error.number, error.qos, 0)])

    def _on_too_big(self, number: int, qos: int, size: int) -> None:
        """Discard a message, for good: it would come again and again."""
        if qos == 2 and self._client is not None and self._session.is_received(number, size):
            self._client.received(number)
            return
        self.warn(f"a message of {size} bytes was discarded: it is over the option max_size")
        self.sink.dropped(1)
        if qos:
            self._acknowledge([(number, qos, size)])

    def _answered(self, delivery: Delivery) -> None:
        if delivery.token is not None:
            self._acknowledge([delivery.token])
        answer = self._questions.get((delivery.properties or {}).get("correlation_data", b""))
        if answer is not None and not answer.done():
            answer.set_result(delivery._replace(token=None, identity=None))


def _fail(waited_for: asyncio.Future[Any] | None, error: BaseException) -> None:
    if waited_for is not None and not waited_for.done():
        waited_for.set_exception(error)
        waited_for.exception()  # perhaps nobody looks any more


def _properties(kind: int) -> Any:
    return Properties(kind)  # type: ignore[no-untyped-call]


def _text(found: Any) -> str:
    """The broker's own words."""
    return str(getattr(found, "ReasonString", ""))

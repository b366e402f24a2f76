"""NATS (`nats`, `tls+nats`) on nats-py: core NATS, which delivers at most once, and JetStream with `stream=`.

Beside it: `nats_plan` (what the address asks for), `nats_transport` (the socket), `nats_stream` (reading a
stream), `nats_client` (nats-py's client, guarded). Here one private name of it is used, `_transport`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import errors as js_errors

from trunkline.actors.driver import Delivery, FatalError, Outgoing, Overflow, Sink, StreamDriver
from trunkline.actors.drivers.nats.client import GuardedClient
from trunkline.actors.drivers.nats.plan import (
    LONGEST,
    Plan,
    StreamPlan,
    header_bytes,
    is_subject,
    matches,
    meet,
    plan_of,
    sound_headers,
)
from trunkline.actors.drivers.nats.questions import ask
from trunkline.actors.drivers.nats.stream import Place, StreamReader, explained
from trunkline.actors.drivers.nats.transport import LinkTransport
from trunkline.actors.net import dialer, tls_alerts
from trunkline.actors.net.liveness import Traffic
from trunkline.actors.net.servers import first_that_opens
from trunkline.address import Address
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout, RefusedError, Unconfirmed, Unsupported

__all__ = ["NatsDriver"]

_CHECK_S = 1.0
"""How long a link's first write waits for the server's word that it may write there."""
_CLOSE_S = 0.6
_NEVER_S = 10**6
_UNBOUNDED = 1 << 60
"""For nats-py's pending buffer: a write waits before it, until the socket takes what is there."""
_PENDING = 64 * 1024
_SUBJECTS_KEPT = 1000
_BAD_LOGIN = ("authorization", "authentication", "credentials")
_TOO_LATE = "the link ended before the answer came; the message may have arrived"
_new = tuple.__new__
"""A Delivery without its constructor, which takes as long as all the rest of receiving one."""
_PLACES: dict[int, tuple[Address, Place]] = {}
"""By the address object of a connection: a driver is one attempt at a link, and the place outlives it."""

# nats-py tells of errors in its log as well as by its callbacks and exceptions.
logging.getLogger("nats").addHandler(logging.NullHandler())


class NatsDriver(StreamDriver):
    """One link to one of the address's servers."""

    schemes: ClassVar[tuple[str, ...]] = ("nats", "tls+nats")
    extra: ClassVar[str | None] = "nats"
    confirms: ClassVar[bool] = True
    addressing: ClassVar[frozenset[str]] = frozenset(("topic", "headers", "reply_to", "answers"))
    verdicts: ClassVar[frozenset[str]] = frozenset(("nak", "reject"))

    def __init__(self, address: Address, sink: Sink) -> None:
        super().__init__(address, sink)
        self._plan: Plan | None = None
        self._client: GuardedClient | None = None
        self._transport: LinkTransport | None = None
        self._reader: StreamReader | None = None
        self._batch: list[Delivery] = []
        self._largest = int(address.option("max_size"))
        self._topics = 0
        """The subscriptions with these first numbers are ours."""
        self._earlier: dict[int, list[str]] = {}
        """By subscription: the topics before its own that may bring the same messages."""
        self._turn = asyncio.Lock()
        self._waiting: dict[asyncio.Timeout, _Waiting] = {}
        self._flushes: set[asyncio.Future[None]] = set()
        self._checking_stream: asyncio.Future[None] | None = None
        self._allowed = False
        self._denied: str | None = None
        self._refused: dict[str, str] = {}
        """What the server said of subjects, in lower case, that we may not publish to."""
        self._tried: set[str] = set()
        """Subjects of messages with a topic of their own that the server lets us publish to."""
        self._checking: set[str] = set()
        """Subjects, in lower case, whose first message the server has not looked at yet."""
        self._elsewhere: str | None = None
        self._error: Exception | None = None
        self._opened = self._over = False

    @classmethod
    def overflow_for(cls, address: Address) -> Overflow:
        return Overflow.BACK_PRESSURE if address.params.get("stream") else Overflow.DROP_OLDEST

    @classmethod
    def redelivers(cls, address: Address) -> bool:
        """A durable consumer keeps what was not acknowledged."""
        params = address.params
        return bool(params.get("stream") and (params.get("durable") or params.get("queue")))

    @property
    def peer(self) -> str:
        return self._transport.peer if self._transport is not None else super().peer

    # the link

    async def open(self, deadline: Deadline) -> None:
        plan = self._plan = plan_of(self.address)
        places = range(len(plan.servers))
        await first_that_opens(places, partial(self._attempt, plan), deadline)

    async def _attempt(self, plan: Plan, index: int, deadline: Deadline) -> None:
        """One server: connect, log in, subscribe; closed again unless all of it succeeds."""
        transport = self._transport = LinkTransport(self.address, *plan.servers[index], deadline)
        client = self._client = GuardedClient(self.sink.warn)
        client._transport = transport  # its only way to a socket of ours; see test_nats_driver
        transport.ended = partial(self._on_task_ended, client)
        self._error = self._denied = None
        stage = "accepted the connection and did not answer as a NATS server does"
        try:
            async with dialer.within(deadline, f"{transport.peer} {stage}"):
                await self._log_in(client, plan, index)
            stage = "took the login and did not answer the subscription"
            async with dialer.within(deadline, f"{transport.peer} {stage}"), self._waits(Deadline(None), ""):
                await self._subscribe(client, plan, deadline)
            if self._denied is not None:
                raise FatalError(self._denied)
            if client.is_closed:
                raise self._error or ConnectionError("closed by the server")
        except BaseException as error:
            await asyncio.shield(self._shut())
            if isinstance(error, (nats.errors.Error, js_errors.Error, OSError, EOFError, DialError)):
                raise self._in_words(error) from None
            raise
        self._opened = True
        if self._reader is not None:
            self._reader.start()

    async def _log_in(self, client: Client, plan: Plan, index: int) -> None:
        await client.connect(
            "nats://localhost",  # not looked at: the transport dials
            error_cb=self._on_error,
            closed_cb=self._on_closed,
            lame_duck_mode_cb=self._on_lame_duck,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=_NEVER_S,
            # `ping` is called instead, and any byte is a sign of life: nats-py waits for the answer, which
            # may stand behind a long message.
            ping_interval=_NEVER_S,
            pending_size=_UNBOUNDED,
            # The transport makes its own; without one nats-py would load every authority there is.
            tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            **plan.logins[index],
        )

    async def _subscribe(self, client: GuardedClient, plan: Plan, deadline: Deadline) -> None:
        """Subscribe, and know that it is in force when this returns."""
        if plan.stream is not None and plan.write_to is not None:
            check = self._check_stream(client, plan.stream, plan.write_to, deadline)
            if self.had_link:  # it was right: a leader that has died need not hold up the writers
                self._checking_stream = asyncio.ensure_future(self._checked_later(check))
            else:
                await check
        if plan.stream is not None and plan.reads:
            place = _PLACES.setdefault(id(self.address), (self.address, Place()))[1]
            topic = plan.topics[0] if plan.topics else None
            self._reader = StreamReader(client, plan.stream, topic, self.sink, place, self._lost)
            await self._reader.open(deadline)
        elif plan.stream is None:
            self._topics = len(plan.topics)
            self._earlier = _earlier(plan)
            client.msg_class = self._made  # type: ignore[assignment]  # it is only called; see test_nats_driver
            for topic in plan.topics:
                await client.subscribe(topic, queue=plan.queue or "")
        await self._looked_at(client)

    async def _check_stream(
        self, client: Client, stream: StreamPlan, subject: str, deadline: Deadline
    ) -> None:
        """Whether the stream keeps what we write there: else another one might, or none."""
        try:
            info = await ask(client, lambda manager: manager.stream_info(stream.name), deadline)
        except (nats.errors.Error, js_errors.Error) as error:
            raise explained(error, stream, subject) from None
        if not any(matches(pattern, subject) for pattern in info.config.subjects or ()):
            self._elsewhere = f"stream {stream.name} takes no messages on {subject}; add it to its subjects"

    async def _checked_later(self, check: Coroutine[Any, Any, None]) -> None:
        try:
            await check
        except FatalError as error:
            self._lost(error)
        except DialError:
            pass  # no answer: each write is told what became of it

    async def _looked_at(self, client: Client) -> None:
        """Wait until the server has looked at all that was written: a round trip. nats-py's `flush` alone
        sends its PING before what is still pending."""
        assert self._transport is not None
        while client.pending_data_size and not client.is_closed:
            await self._transport.drain()
            await asyncio.sleep(0)
        # In a task of its own: nats-py stops to read when the answer to a PING is not waited for any more.
        flush = asyncio.ensure_future(client.flush(_NEVER_S))
        self._flushes.add(flush)
        flush.add_done_callback(self._flushed)
        await asyncio.shield(flush)

    def _flushed(self, flush: asyncio.Future[None]) -> None:
        self._flushes.discard(flush)
        if not flush.cancelled():
            flush.exception()  # whoever still waits has it

    def _in_words(self, error: Exception) -> DialError:
        """Why there is no link, for users."""
        failure = self._transport.failure if self._transport is not None else None
        if isinstance(error, DialError):
            return error
        if isinstance(failure, DialError):
            return failure
        if (unparsed := self._unparsed()) is not None:
            return DialError(unparsed)
        said = _said(self._error or error)
        if _is_login(said):
            return FatalError(f"{self.peer} refused the login ({said}); check user, password, token or key")
        if "expecting info" in said.lower() or "json parse" in said.lower():
            if self._transport is not None and self._transport.silent:
                return DialError(f"{self.peer} closed the connection at once; is it a NATS server?")
            return FatalError(f"{self.peer} does not speak NATS; check the port and the scheme")
        if isinstance(error, TimeoutError):
            return DialTimeout(f"{self.peer} did not answer in the time allowed")
        if self._transport is not None and self._transport.secure:
            said += tls_alerts.if_it_wants_a_certificate(self.address.option("certfile"))
        return DialError(f"{self.peer} ended the connection: {said}")

    async def ping(self) -> None:
        client, transport = self._client, self._transport
        if client is not None and client.is_connected and transport is not None and transport.writable:
            with contextlib.suppress(nats.errors.Error):  # a link that ends just now
                await client._send_ping()

    def traffic(self) -> Traffic | None:
        if self._transport is None:
            return None
        found = self._transport.traffic()
        kept = self._client.pending_data_size if self._client is not None else 0
        return found._replace(sent=found.sent + kept, waiting=found.waiting + kept)

    async def close(self) -> None:
        self._over = True
        await self._shut()

    async def _shut(self) -> None:
        """Close what there is, in good order where that is soon done: what is to be acknowledged first, then
        what was written last. Each has a part of the time that the worker gives, which is 1.5 s."""
        self._wake(ConnectionError(_TOO_LATE))
        client, transport = self._client, self._transport
        with contextlib.suppress(Exception):
            if self._reader is not None:
                await self._reader.close()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_S):
                if client is not None and not client.is_closed:
                    if transport is not None:
                        transport.orderly = client.is_connected
                    await client.close()  # sends what is pending, and waits for the server's end
        if transport is not None:
            unsent = transport.unsent + (client.pending_data_size if client is not None else 0)
            if unsent and self._opened and transport.orderly:
                self.sink.warn(f"{self.peer} did not take the last {unsent} bytes before the end")
            transport.abort()
        for flush in self._flushes:
            flush.cancel()
        if self._checking_stream is not None:
            self._checking_stream.cancel()

    # what nats-py tells

    async def _on_closed(self) -> None:
        assert self._client is not None
        if self._error is None:
            self._error = self._client.last_error
        if self._opened:
            self._lost(self._reason())
        self._wake(ConnectionError(_TOO_LATE))

    def _on_task_ended(self, client: Client) -> None:
        """nats-py does not read or write any more. Where it closes the link it says so itself, but not before
        the socket has taken what is left, which may be never."""
        if self._over or client is not self._client:
            return
        if client.is_closed:
            asyncio.get_running_loop().call_later(_CLOSE_S, self._end_without_a_word, client)
        else:
            self._end_without_a_word(client)

    def _end_without_a_word(self, client: Client) -> None:
        if self._over or self._client is None or client is not self._client:  # the next server is tried
            return
        self._error = self._error or self._client.last_error
        self._wake(ConnectionError(_TOO_LATE))
        if self._opened:
            self._lost(self._reason() or ConnectionError(f"the NATS library stopped to serve {self.peer}"))

    def _unparsed(self) -> str | None:
        """What the server sent that nats-py cannot read, in words."""
        error = self._client.unparsed if self._client is not None else None
        return None if error is None else f"{self.peer} sent what is not NATS ({_said(error)[:200]})"

    def _reason(self) -> BaseException | None:
        said = _said(self._error) if self._error is not None else ""
        if (unparsed := self._unparsed()) is not None:
            return ConnectionError(f"{unparsed}; the link counts as lost")
        if _is_login(said):
            return FatalError(f"{self.peer} ended the login: {said}; check user, password, token or key")
        if isinstance(self._error, (nats.errors.UnexpectedEOF, type(None))):
            return None
        return ConnectionError(f"{self.peer} closed the connection: {said}")

    async def _on_error(self, error: Exception) -> None:
        said = _said(error)
        if isinstance(error, nats.errors.SlowConsumerError):
            self.sink.dropped(1)
        elif _is_violation(error):
            self._on_violation(said)
        elif not isinstance(error, nats.errors.UnexpectedEOF):
            self._error = error
        elif self._client is not None and not _is_violation(self._client.last_error):
            self._error = self._client.last_error  # the server's last word: nats-py is about to forget it

    def _on_violation(self, said: str) -> None:
        """Something that we may not do. nats-py has made the words lower case."""
        subject = said.split('"')[1] if said.count('"') > 1 else "that subject"
        if " publish " in said:
            words = f"{self.peer} does not allow to publish to {subject}; check the user's permissions"
            self._allowed = False
            self._tried.discard(subject)
            if not self._opened:
                self._wake(FatalError(words))  # a stream is read by publishing questions
            elif self._reader is not None and subject.startswith("$js.") and subject not in self._checking:
                what = "acknowledge messages" if subject.startswith("$js.ack.") else "ask for messages"
                words = f"{self.peer} does not allow to {what} (publish to {_jetstream(subject)})"
                self._lost(FatalError(f"{words}; check the user's permissions"))
            elif self._plan is not None and (
                subject in self._checking or subject == (self._plan.write_to or "").lower()
            ):
                self._refused[subject] = words
                self._wake(RefusedError(words), subject)
                self.sink.warn(words)
            return
        self._denied = f"{self.peer} does not allow to subscribe to {subject}; check the user's permissions"
        if self._opened:
            self._lost(FatalError(self._denied))  # a right that was taken away meanwhile

    async def _on_lame_duck(self) -> None:
        self.sink.warn(f"{self.peer} is going to be shut down (lame duck mode): the link will be lost soon")

    def _lost(self, reason: BaseException | None) -> None:
        if not self._over:
            self._over = True
            self.sink.lost(reason)

    # reading

    def _made(
        self,
        subject: str,
        reply: str,
        data: bytes,
        headers: dict[str, Any] | None,
        _client: Client,
        _sid: int,
    ) -> Msg | None:
        """In place of nats-py's `Msg`; it passes by what is None: a message of ours needs no queue and
        no task of its subscription. Those are a third of its cost, mix up the order of several topics, and
        drop what does not fit them."""
        if _sid > self._topics:  # the answer to a question
            return Msg(_client, subject, reply, data, headers, _sid=_sid)
        if self._earlier and any(matches(topic, subject) for topic in self._earlier.get(_sid, ())):
            return None  # it comes once for each topic that matches, and to us once is enough
        if len(data) > self._largest:
            self.sink.warn(f"a message of {len(data)} bytes was discarded: it is over the option max_size")
            self.sink.dropped(1)
            return None
        if not self._batch:  # what came with it is handed over with it
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._batch.append(
            _new(
                Delivery,
                (data, subject, None, headers, None, None, None, False, reply or None, None, None, None),
            )
        )
        return None

    def _hand_over(self) -> None:
        batch, self._batch = self._batch, []
        self.sink.deliver(batch)

    def pause(self) -> None:
        if self._reader is not None:
            self._reader.pause()

    def resume(self) -> None:
        if self._reader is not None:
            self._reader.resume()

    def lag(self) -> int | None:
        return self._reader.lag() if self._reader is not None else None

    def settle(self, tokens: Sequence[Any]) -> None:
        if self._reader is not None:
            self._reader.settle(tokens)

    def refuse(self, token: Any, verdict: str, delay_ms: float) -> None:
        if self._reader is not None:
            self._reader.refuse(token, verdict, delay_ms)

    # writing

    def would_wait(self, size: int) -> bool:
        return (
            not self._allowed
            or self._over
            or self._transport is None
            or self._plan is None
            or self._plan.stream is not None
            or self._client is None
            or not self._has_room(self._transport, self._client)
            or size + self._plan.overhead > self._client.max_payload
        )

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        """Core NATS: given to the socket. A link's first write, and the one after a refusal, also waits until
        the server has looked at it. With `stream`: acknowledged by the stream."""
        client, plan, subject, payload = self._ready(data)
        if not await self._room(client, deadline):
            return 0
        if plan.stream is not None:
            await self._published(client, plan, subject, payload, plan.headers, deadline)
        else:
            await self._publish(client, subject, payload, plan.headers)
            if not self._allowed:
                await self._check(client, subject, deadline)
        return len(payload)

    async def _publish(
        self, client: Client, subject: str, payload: bytes, headers: dict[str, str], reply: str = ""
    ) -> None:
        try:
            await client.publish(subject, payload, reply, headers=headers or None)
        except nats.errors.Error as error:
            raise _gone(error) from None

    async def send_to(self, data: str | bytes | None, outgoing: Outgoing, deadline: Deadline) -> int:
        """An answer goes out by core NATS, also where a stream is read: the asker waits on its subject."""
        client, plan = self._living()
        subject = self._subject(plan, outgoing)
        try:
            headers = plan.headers if outgoing.headers is None else sound_headers(outgoing.headers)
        except ValueError as error:
            raise RefusedError(f"the message cannot be sent: {error}") from None
        payload = data.encode() if isinstance(data, str) else data or b""
        self._check_size(client, len(payload) + header_bytes(headers))
        reply = outgoing.reply_to or ""
        if len(subject.encode()) + len(reply.encode()) > LONGEST:
            raise RefusedError(
                f"the subjects of the message have more than {LONGEST} bytes, for which servers end the link"
            )
        if not await self._room(client, deadline):
            return 0
        if plan.stream is not None and not outgoing.answers:
            if outgoing.reply_to is not None:
                raise Unsupported("with stream= the reply subject is JetStream's own: write without reply_to")
            await self._published(client, plan, subject, payload, headers, deadline)
            return len(payload)
        if reply and not is_subject(reply, pattern=False):
            raise RefusedError(f"reply_to={reply[:80]!r} is no subject: words joined by dots, no wildcards")
        await self._publish(client, subject, payload, headers, reply)
        if subject not in self._tried:
            await self._check(client, subject, deadline)
            if len(self._tried) < _SUBJECTS_KEPT:
                self._tried.add(subject)
        return len(payload)

    def _subject(self, plan: Plan, outgoing: Outgoing) -> str:
        if outgoing.topic is None:
            return self._own_subject(plan)
        if not is_subject(outgoing.topic, pattern=False):
            raise RefusedError(
                f"topic={outgoing.topic[:80]!r} is no subject to write to: words joined by dots, no wildcards"
            )
        return outgoing.topic

    async def request(self, data: str | bytes, deadline: Deadline) -> Delivery:
        client, plan, subject, payload = self._ready(data)
        if not await self._room(client, deadline):
            raise TimeoutError(f"{self.peer} did not take the question in the time allowed")
        try:
            async with self._waits(deadline, subject.lower()):
                answer = await client.request(subject, payload, _NEVER_S, headers=plan.headers or None)
        except TimeoutError:
            raise TimeoutError(f"no answer from {subject} in the time allowed") from None
        except nats.errors.NoRespondersError:
            raise RefusedError(f"nobody answers on {subject}: no one is subscribed to it", code=503) from None
        except nats.errors.Error as error:
            raise _gone(error) from None
        return _delivery(answer)

    def _ready(self, data: str | bytes) -> tuple[Client, Plan, str, bytes]:
        client, plan = self._living()
        subject = self._own_subject(plan)
        payload = data.encode() if isinstance(data, str) else data
        self._check_size(client, len(payload) + plan.overhead)
        return client, plan, subject, payload

    def _living(self) -> tuple[Client, Plan]:
        if self._over or self._client is None or self._plan is None:
            raise ConnectionError("the link is gone")
        return self._client, self._plan

    def _own_subject(self, plan: Plan) -> str:
        if plan.write_to is None:
            raise RefusedError("there is no one subject to write to; give write_topic=name")
        if self._elsewhere is not None:
            raise RefusedError(self._elsewhere)
        return plan.write_to

    def _check_size(self, client: Client, size: int) -> None:
        if size > client.max_payload:
            raise RefusedError(
                f"the message has {size} bytes with its headers; {self.peer} takes at most "
                f"{client.max_payload}"
            )

    def _has_room(self, transport: LinkTransport, client: Client) -> bool:
        return transport.writable and client.pending_data_size < _PENDING and not self._turn.locked()

    async def _room(self, client: Client, deadline: Deadline) -> bool:
        """Wait for our turn, until the socket takes more; False when it did not by the deadline."""
        assert self._transport is not None
        if self._has_room(self._transport, client):
            return True
        try:
            async with asyncio.timeout(deadline.timeout()), self._turn:
                while not self._transport.writable or client.pending_data_size >= _PENDING:
                    await self._transport.drain()
                    await asyncio.sleep(0)  # for nats-py's flusher
                    if self._over or client.is_closed:
                        raise ConnectionError("the link is gone")
        except TimeoutError:
            return False
        return True

    async def _check(self, client: Client, subject: str, deadline: Deadline) -> None:
        """Whether the server lets us publish there: it says so before it answers a PING."""
        low = subject.lower()
        self._refused.pop(low, None)
        self._checking.add(low)
        try:
            await self._check_now(client, low, deadline)
        finally:
            self._checking.discard(low)
            refusal = self._refused.pop(low, None)
        if refusal is not None:  # it came together with the answer
            raise RefusedError(refusal)
        if self._plan is not None and subject == self._plan.write_to:
            self._allowed = True

    async def _check_now(self, client: Client, subject: str, deadline: Deadline) -> None:
        try:
            async with self._waits(Deadline(min(_CHECK_S, deadline.left())), subject):
                await self._looked_at(client)
        except TimeoutError:
            return  # it is on its way, which is all that core NATS promises
        except nats.errors.Error as error:
            raise _gone(error) from None

    async def _published(
        self,
        client: Client,
        plan: Plan,
        subject: str,
        payload: bytes,
        headers: dict[str, str],
        deadline: Deadline,
    ) -> None:
        assert plan.stream is not None
        stream = client.jetstream()
        self._checking.add(subject.lower())
        try:
            async with self._waits(deadline, subject.lower()):
                await stream.publish(subject, payload, timeout=_NEVER_S, headers=headers or None)
        except TimeoutError:
            raise Unconfirmed(
                "the stream did not acknowledge in the time allowed; it may have the message"
            ) from None
        except js_errors.NoStreamResponseError:
            raise RefusedError(
                f"no stream takes messages on {subject}; add it to the subjects of {plan.stream.name}",
                code=503,
            ) from None
        except js_errors.APIError as error:
            raise RefusedError(
                f"the stream refused the message: {error.description}", code=error.err_code
            ) from None
        except nats.errors.Error as error:
            raise _gone(error) from None
        except (ValueError, TypeError, KeyError):
            raise RefusedError(f"what answers on {subject} is not a stream; check stream=") from None
        finally:
            self._checking.discard(subject.lower())

    @contextlib.asynccontextmanager
    async def _waits(self, deadline: Deadline, subject: str) -> AsyncIterator[None]:
        """TimeoutError at the deadline, and at once what `_wake` was given: nats-py goes on waiting for an
        answer when the link has ended or the question was refused. `subject` in lower case."""
        limit = asyncio.timeout(deadline.timeout())
        waiting = self._waiting[limit] = _Waiting(subject)
        try:
            async with limit:
                yield
        except TimeoutError:
            if waiting.reason is not None:
                raise waiting.reason from None
            raise
        finally:
            del self._waiting[limit]

    def _wake(self, reason: Exception, subject: str | None = None) -> None:
        """All who wait are told the reason; with a `subject` only those who published to it."""
        now = asyncio.get_running_loop().time()
        for limit, waiting in self._waiting.items():
            if subject is not None and waiting.subject != subject:
                continue
            waiting.reason = reason
            with contextlib.suppress(RuntimeError):  # its time is up already
                limit.reschedule(now)


@dataclass(slots=True)
class _Waiting:
    """A call that waits for the server's answer."""

    subject: str
    reason: Exception | None = None
    """Why it need not wait any longer."""


def _earlier(plan: Plan) -> dict[int, list[str]]:
    """By number of the subscription, the topics before its own that some message may match, too. None in a
    queue group, whose server sends a message to it once."""
    found = {
        number + 1: [other for other in plan.topics[:number] if meet(other, topic)]
        for number, topic in enumerate(plan.topics)
    }
    return {} if plan.queue else {number: topics for number, topics in found.items() if topics}


def _delivery(msg: Msg) -> Delivery:
    return Delivery(
        msg.data, msg.subject, headers=dict(msg.headers or {}) or None, reply_to=msg.reply or None
    )


def _said(error: BaseException) -> str:
    """The server's or nats-py's own words."""
    return str(error).removeprefix("nats: ").strip().strip("'") or type(error).__name__


def _is_violation(error: BaseException | None) -> bool:
    return error is not None and _said(error).lower().startswith("permissions violation")


def _jetstream(subject: str) -> str:
    """The subject as rights are given for it, from nats-py's lower case."""
    words = [word.upper() for word in subject.split(".")]
    return "$JS.ACK.>" if words[1:2] == ["ACK"] else ".".join([*words[:5], ">"])


def _is_login(said: str) -> bool:
    return any(word in said.lower() for word in _BAD_LOGIN)


def _gone(error: Exception) -> ConnectionError:
    return ConnectionError(f"the link is gone ({_said(error)})")

"""NATS (`nats`, `tls+nats`) on nats-py: core NATS, which delivers at most once, and JetStream with
`stream=`.

This module holds the life of a link. It tries the servers of the address, logs in, subscribes, and
reports why a link has ended. Its neighbours: `plan` (what the address asks for), `client`
(nats-py's client, guarded), `transport` (the socket), `core_reader` and `reader` (reading topics
and reading a stream), `writer`, `errors`.

Everything here runs on the worker's event loop. nats-py adds tasks of its own on the same loop: one
reads, one writes. They may end at any time, and `_on_task_ended` notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, ClassVar

import nats.errors
from nats.aio.client import Client
from nats.js import errors as js_errors

from trunkline.actors.driver import Delivery, FatalError, Outgoing, Overflow, Sink, StreamDriver
from trunkline.actors.drivers.nats.client import GuardedClient
from trunkline.actors.drivers.nats.core_reader import CoreReader
from trunkline.actors.drivers.nats.errors import (
    explain_stream_error,
    is_login_error,
    is_violation,
    jetstream_right,
    said,
    subject_of_violation,
)
from trunkline.actors.drivers.nats.place import Place
from trunkline.actors.drivers.nats.plan import Plan, StreamPlan, matches, plan_of
from trunkline.actors.drivers.nats.questions import ask
from trunkline.actors.drivers.nats.reader import StreamReader
from trunkline.actors.drivers.nats.transport import LinkTransport
from trunkline.actors.drivers.nats.waits import Waits
from trunkline.actors.drivers.nats.writer import NEVER_S, Writer
from trunkline.actors.net import dialer, tls_alerts
from trunkline.actors.net.liveness import Traffic
from trunkline.actors.net.servers import first_that_opens
from trunkline.address import Address
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout, RefusedError

__all__ = ["NatsDriver"]

_CLOSE_S = 0.6
_UNBOUNDED = 1 << 60
"""The limit of nats-py's pending buffer, in bytes. No limit is needed: the writer waits by itself
while the socket does not take the bytes.
"""
_TOO_LATE = "the link ended before the answer came; the message may have arrived"
_PLACES: dict[int, tuple[Address, Place]] = {}
"""The reading place of each connection, by the identity of its address object.

A driver object lives for one attempt at a link, and the place must live longer. Keeping the
address, too, prevents a new object with the same identity.
"""

# nats-py reports its errors by callbacks and exceptions, and once more in its log. The log is
# silenced.
logging.getLogger("nats").addHandler(logging.NullHandler())


class NatsDriver(StreamDriver):
    """A link to a server of the address."""

    schemes: ClassVar[tuple[str, ...]] = ("nats", "tls+nats")
    extra: ClassVar[str | None] = "nats"
    confirms: ClassVar[bool] = True
    addressing: ClassVar[frozenset[str]] = frozenset(("topic", "headers", "reply_to", "answers"))
    verdicts: ClassVar[frozenset[str]] = frozenset(("nak", "reject"))

    def __init__(self, address: Address, sink: Sink) -> None:
        super().__init__(address, sink)
        self._client: GuardedClient | None = None
        self._transport: LinkTransport | None = None
        self._reader: StreamReader | None = None
        self._writer: Writer | None = None
        self._waits = Waits()
        self._checking_stream: asyncio.Future[None] | None = None
        self._denied: str | None = None
        """Why the server rejects a subscription; None without a rejection."""
        self._error: Exception | None = None
        """The last error of the server or of nats-py."""
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
        """Try the servers of the address until a link opens."""
        plan = plan_of(self.address)
        places = range(len(plan.servers))
        await first_that_opens(places, partial(self._attempt, plan), deadline)

    async def _attempt(self, plan: Plan, index: int, deadline: Deadline) -> None:
        """Connect to one server, log in and subscribe.

        A failure closes the connection again.
        """
        transport = self._transport = LinkTransport(self.address, *plan.servers[index], deadline)
        client = self._client = GuardedClient(self.sink.warn, transport)
        writer = self._writer = Writer(client, transport, plan, self._waits)
        transport.ended = partial(self._on_task_ended, client)
        self._error = self._denied = None
        stage = "accepted the connection and did not answer as a NATS server does"
        try:
            async with dialer.within(deadline, f"{transport.peer} {stage}"):
                await self._log_in(client, plan, index)
            stage = "took the login and did not answer the subscription"
            answered = self._waits.until_answered(Deadline(None))
            async with dialer.within(deadline, f"{transport.peer} {stage}"), answered:
                await self._subscribe(client, writer, plan, deadline)
            if self._denied is not None:
                raise FatalError(self._denied)
            if client.is_closed:
                raise self._error or ConnectionError("closed by the server")
        except BaseException as error:
            await asyncio.shield(self._shut())
            if isinstance(
                error, (nats.errors.Error, js_errors.Error, OSError, EOFError, DialError)
            ):
                raise self._explain(error) from None
            raise
        self._opened = True
        if self._reader is not None:
            self._reader.start()

    async def _log_in(self, client: Client, plan: Plan, index: int) -> None:
        """Let nats-py log in over the transport, without its own reconnecting and time limits."""
        await client.connect(
            "nats://localhost",  # ignored: the transport dials
            error_cb=self._on_error,
            closed_cb=self._on_closed,
            lame_duck_mode_cb=self._on_lame_duck,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=NEVER_S,
            # nats-py's own PINGs are switched off. nats-py waits for the PONG, which may stand
            # behind a long message. The actor calls `ping` instead, and any received byte is a sign
            # of life.
            ping_interval=NEVER_S,
            pending_size=_UNBOUNDED,
            # The transport makes its own context. Without the argument nats-py would load the
            # system's authorities.
            tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            **plan.logins[index],
        )

    async def _subscribe(
        self, client: GuardedClient, writer: Writer, plan: Plan, deadline: Deadline
    ) -> None:
        """Subscribe, and return when the server has put the subscriptions into force."""
        if plan.stream is not None and plan.write_to is not None:
            check = self._check_stream(client, writer, plan.stream, plan.write_to, deadline)
            # The first link has checked the stream. Later links check it in the background, so a
            # cluster without a leader does not hold up the program's writes.
            if self.had_link:  # checked before: do not let a dead leader delay the writers
                self._checking_stream = asyncio.ensure_future(self._check_stream_later(check))
            else:
                await check
        if plan.stream is not None and plan.reads:
            place = _PLACES.setdefault(id(self.address), (self.address, Place()))[1]
            topic = plan.topics[0] if plan.topics else None
            self._reader = StreamReader(client, plan.stream, topic, self.sink, place, self._lost)
            await self._reader.open(deadline)
        elif plan.stream is None:
            largest = int(self.address.option("max_size"))
            await CoreReader(client, plan, self.sink, largest).open()
        await client.wait_until_seen()

    async def _check_stream(
        self, client: Client, writer: Writer, stream: StreamPlan, subject: str, deadline: Deadline
    ) -> None:
        """Check the stream's subjects, and tell the writer where the stream does not take its
        subject.

        Without this check another stream might take the messages, or no stream at all.
        """
        try:
            info = await ask(client, lambda manager: manager.stream_info(stream.name), deadline)
        except (nats.errors.Error, js_errors.Error) as error:
            raise explain_stream_error(error, stream, subject) from None
        if not any(matches(pattern, subject) for pattern in info.config.subjects or ()):
            writer.elsewhere = (
                f"stream {stream.name} takes no messages on {subject}; add it to its subjects"
            )

    async def _check_stream_later(self, check: Coroutine[Any, Any, None]) -> None:
        """Run the check of the stream in the background; only a fatal finding ends the link."""
        try:
            await check
        except FatalError as error:
            self._lost(error)
        except DialError:
            pass  # no answer came: each write reports its own outcome

    def _explain(self, error: Exception) -> DialError:
        """Return the reason for a missing link, in words for users."""
        failure = self._transport.failure if self._transport is not None else None
        if isinstance(error, DialError):
            return error
        if isinstance(failure, DialError):
            return failure
        if (unparsed := self._unparsed()) is not None:
            return DialError(unparsed)
        words = said(self._error or error)
        if is_login_error(words):
            return FatalError(
                f"{self.peer} refused the login ({words}); check user, password, token or key"
            )
        if "expecting info" in words.lower() or "json parse" in words.lower():
            if self._transport is not None and self._transport.silent:
                return DialError(f"{self.peer} closed the connection at once; is it a NATS server?")
            return FatalError(f"{self.peer} does not speak NATS; check the port and the scheme")
        if isinstance(error, TimeoutError):
            return DialTimeout(f"{self.peer} did not answer in the time allowed")
        if self._transport is not None and self._transport.secure:
            words += tls_alerts.if_it_wants_a_certificate(self.address.option("certfile"))
        return DialError(f"{self.peer} ended the connection: {words}")

    async def ping(self) -> None:
        """Send a PING, unless bytes wait for the socket: the PING would only wait behind them."""
        client, transport = self._client, self._transport
        if (
            client is not None
            and client.is_connected
            and transport is not None
            and transport.writable
        ):
            with contextlib.suppress(nats.errors.Error):  # the link ends at this moment
                await client.send_ping()

    def traffic(self) -> Traffic | None:
        """Return the transport's figures, with the bytes that wait in nats-py."""
        if self._transport is None:
            return None
        found = self._transport.traffic()
        kept = self._client.pending_data_size if self._client is not None else 0
        return found._replace(sent=found.sent + kept, waiting=found.waiting + kept)

    async def close(self) -> None:
        self._end()
        await self._shut()

    async def _shut(self) -> None:
        """Close the reader, the client and the socket, in good order if possible.

        Acknowledgements go out first, then the bytes written last. The worker allows 1.5 s for
        closing, divided among the steps.
        """
        self._waits.end(ConnectionError(_TOO_LATE))
        client, transport = self._client, self._transport
        with contextlib.suppress(Exception):
            if self._reader is not None:
                await self._reader.close()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_S):
                if client is not None and not client.is_closed:
                    if transport is not None:
                        transport.orderly = client.is_connected
                    await client.close()  # sends pending bytes, and waits until the server closes
        if transport is not None:
            unsent = transport.unsent + (client.pending_data_size if client is not None else 0)
            if unsent and self._opened and transport.orderly:
                self.sink.warn(f"{self.peer} did not take the last {unsent} bytes before the end")
            transport.abort()
        if client is not None:
            client.cancel_round_trips()
        if self._checking_stream is not None:
            self._checking_stream.cancel()

    # callbacks of nats-py

    async def _on_closed(self) -> None:
        """Handle nats-py's report that the client is closed."""
        assert self._client is not None
        if self._error is None:
            self._error = self._client.last_error
        if self._opened:
            self._lost(self._reason())
        self._waits.end(ConnectionError(_TOO_LATE))

    def _on_task_ended(self, client: Client) -> None:
        """Handle the end of nats-py's reading or writing task.

        Where nats-py is closing the link, it calls `_on_closed` itself. That call may never come,
        because nats-py waits until the socket has taken the remaining bytes. So
        `_end_without_a_word` runs after `_CLOSE_S` seconds.
        """
        if self._over or client is not self._client:
            return
        if client.is_closed:
            asyncio.get_running_loop().call_later(_CLOSE_S, self._end_without_a_word, client)
        else:
            self._end_without_a_word(client)

    def _end_without_a_word(self, client: Client) -> None:
        """End the link that nats-py serves no more and has not reported as closed."""
        if (
            self._over or self._client is None or client is not self._client
        ):  # an earlier attempt's client: another server is tried
            return
        self._error = self._error or self._client.last_error
        self._waits.end(ConnectionError(_TOO_LATE))
        if self._opened:
            self._lost(
                self._reason() or ConnectionError(f"the NATS library stopped to serve {self.peer}")
            )

    def _unparsed(self) -> str | None:
        """Return the words for bytes that nats-py could not parse, or None."""
        error = self._client.unparsed if self._client is not None else None
        return None if error is None else f"{self.peer} sent what is not NATS ({said(error)[:200]})"

    def _reason(self) -> BaseException | None:
        """Return why an open link has ended; None for a plain end."""
        words = said(self._error) if self._error is not None else ""
        if (unparsed := self._unparsed()) is not None:
            return ConnectionError(f"{unparsed}; the link counts as lost")
        if is_login_error(words):
            return FatalError(
                f"{self.peer} ended the login: {words}; check user, password, token or key"
            )
        if isinstance(self._error, (nats.errors.UnexpectedEOF, type(None))):
            return None
        return ConnectionError(f"{self.peer} closed the connection: {words}")

    async def _on_error(self, error: Exception) -> None:
        """Handle an error that nats-py reports."""
        if isinstance(error, nats.errors.SlowConsumerError):
            self.sink.dropped(1)
        elif is_violation(error):
            self._on_violation(said(error))
        elif not isinstance(error, nats.errors.UnexpectedEOF):
            self._error = error
        elif self._client is not None and not is_violation(self._client.last_error):
            self._error = (
                self._client.last_error
            )  # the server's last error, which nats-py is about to forget

    def _on_violation(self, text: str) -> None:
        """Handle the server's refusal of a subject. nats-py has changed the server's words to lower
        case.
        """
        subject = subject_of_violation(text)
        if " publish " in text:
            if self._writer is not None:
                self._on_publish_refused(self._writer, subject)
            return
        self._denied = (
            f"{self.peer} does not allow to subscribe to {subject}; check the user's permissions"
        )
        if self._opened:
            self._lost(FatalError(self._denied))  # the right was withdrawn while the link was open

    def _on_publish_refused(self, writer: Writer, subject: str) -> None:
        """Handle the server's refusal of a subject: of reading, of a first message, or of an
        ordinary one.
        """
        words = f"{self.peer} does not allow to publish to {subject}; check the user's permissions"
        rights = writer.rights
        rights.withdraw(subject)
        if not self._opened:
            self._waits.end(FatalError(words))  # questions are published, too
        elif (
            self._reader is not None
            and subject.startswith("$js.")
            and not rights.is_checking(subject)
        ):
            what = "acknowledge messages" if subject.startswith("$js.ack.") else "ask for messages"
            words = f"{self.peer} does not allow to {what} (publish to {jetstream_right(subject)})"
            self._lost(FatalError(f"{words}; check the user's permissions"))
        elif rights.is_writers(subject):
            rights.note_refused(subject, words)
            self._waits.end(RefusedError(words), subject)
            self.sink.warn(words)

    async def _on_lame_duck(self) -> None:
        self.sink.warn(
            f"{self.peer} is going to be shut down (lame duck mode): the link will be lost soon"
        )

    def _lost(self, reason: BaseException | None) -> None:
        """Report the end of the link, once."""
        if not self._over:
            self._end()
            self.sink.lost(reason)

    def _end(self) -> None:
        """Mark the link as over: nothing more is written, and its end is not reported again."""
        self._over = True
        if self._writer is not None:
            self._writer.is_over = True

    # reading

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
        return self._over or self._writer is None or self._writer.would_wait(size)

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        """Send one message to the subject of the address.

        Return its size in bytes, 0 when the deadline came first.

        Core NATS: the message was given to the socket. The first write of a link, and the first one
        after a refusal, also waits until the server has looked at it. With `stream`: the stream has
        acknowledged the message.
        """
        return await self._living_writer().send(data, deadline)

    async def send_to(
        self, data: str | bytes | None, outgoing: Outgoing, deadline: Deadline
    ) -> int:
        return await self._living_writer().send_to(data, outgoing, deadline)

    async def request(self, data: str | bytes, deadline: Deadline) -> Delivery:
        return await self._living_writer().request(data, deadline)

    def _living_writer(self) -> Writer:
        """Return the writer of the link; ConnectionError where the link is over."""
        if self._over or self._writer is None:
            raise ConnectionError("the link is gone")
        return self._writer

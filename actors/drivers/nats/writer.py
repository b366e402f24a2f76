"""Writing: messages by core NATS or into a stream, answers, and questions.

Core NATS gives a message to the socket, and the server is silent unless it refuses the subject. The
first write of a link, and the first one after a refusal, therefore also waits until the server has
looked at the message. A stream acknowledges each message.
"""

from __future__ import annotations

import asyncio

import nats.errors
from nats.js import errors as js_errors

from trunkline.actors.driver import Delivery, Outgoing
from trunkline.actors.drivers.nats.client import GuardedClient
from trunkline.actors.drivers.nats.envelope import answer_of
from trunkline.actors.drivers.nats.errors import gone
from trunkline.actors.drivers.nats.plan import (
    LONGEST,
    Plan,
    header_bytes,
    is_subject,
    sound_headers,
)
from trunkline.actors.drivers.nats.rights import PublishRights
from trunkline.actors.drivers.nats.transport import LinkTransport
from trunkline.actors.drivers.nats.waits import Waits
from trunkline.deadline import Deadline
from trunkline.errors import RefusedError, Unconfirmed, Unsupported

__all__ = ["NEVER_S", "Writer"]

NEVER_S = 10**6
"""For time limits of nats-py, in seconds: the caller's deadlines are the real limits."""
_CHECK_S = 1.0
"""Seconds that the first write of a link waits for the server's refusal."""
_PENDING = 64 * 1024
"""A write waits while nats-py keeps so many bytes that the socket has not taken."""


class Writer:
    """The writing half of one link.

    Several calls of the program may wait at once, in separate tasks of the event loop.
    """

    def __init__(
        self, client: GuardedClient, transport: LinkTransport, plan: Plan, waits: Waits
    ) -> None:
        self._client = client
        self._transport = transport
        self._plan = plan
        self._waits = waits
        self._turn = asyncio.Lock()
        """Held by the write that waits for room. Later writes wait for the lock, so no message
        overtakes another.
        """
        self.rights = PublishRights(plan.write_to)
        self.elsewhere: str | None = None
        """Why nothing can be written: the stream does not keep messages of the subject to write
        to.
        """
        self.is_over = False
        """Whether the link has ended."""

    # the promises of the driver

    def would_wait(self, size: int) -> bool:
        """As `StreamDriver.would_wait`."""
        if self.is_over or not self.rights.is_own_allowed or self._plan.stream is not None:
            return True
        return not self._has_room() or size + self._plan.overhead > self._client.max_payload

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        """As `StreamDriver.send`."""
        subject, payload = self._prepare(data)
        if not await self._wait_for_room(deadline):
            return 0
        if self._plan.stream is not None:
            await self._publish_to_stream(subject, payload, self._plan.headers, deadline)
        else:
            await self._publish(subject, payload, self._plan.headers)
            if not self.rights.is_own_allowed:
                await self._check_allowed(subject, deadline)
        return len(payload)

    async def send_to(
        self, data: str | bytes | None, outgoing: Outgoing, deadline: Deadline
    ) -> int:
        """As `StreamDriver.send_to`.

        An answer goes out by core NATS even where a stream is read, because the asker waits on a
        plain subject.
        """
        subject = self._subject_of(outgoing)
        try:
            headers = (
                self._plan.headers if outgoing.headers is None else sound_headers(outgoing.headers)
            )
        except ValueError as error:
            raise RefusedError(f"the message cannot be sent: {error}") from None
        payload = data.encode() if isinstance(data, str) else data or b""
        self._check_size(len(payload) + header_bytes(headers))
        reply = outgoing.reply_to or ""
        if len(subject.encode()) + len(reply.encode()) > LONGEST:
            raise RefusedError(
                f"the subjects of the message have more than {LONGEST} bytes, for which servers end the link"
            )
        if not await self._wait_for_room(deadline):
            return 0
        if self._plan.stream is not None and not outgoing.answers:
            if outgoing.reply_to is not None:
                raise Unsupported(
                    "with stream= the reply subject is JetStream's own: write without reply_to"
                )
            await self._publish_to_stream(subject, payload, headers, deadline)
            return len(payload)
        if reply and not is_subject(reply, pattern=False):
            raise RefusedError(
                f"reply_to={reply[:80]!r} is no subject: words joined by dots, no wildcards"
            )
        await self._publish(subject, payload, headers, reply)
        if not self.rights.is_known(subject):
            await self._check_allowed(subject, deadline)
            self.rights.note_allowed(subject)
        return len(payload)

    async def request(self, data: str | bytes, deadline: Deadline) -> Delivery:
        """As `StreamDriver.request`."""
        subject, payload = self._prepare(data)
        if not await self._wait_for_room(deadline):
            raise TimeoutError(
                f"{self._transport.peer} did not take the question in the time allowed"
            )
        headers = self._plan.headers or None
        try:
            async with self._waits.until_answered(deadline, subject.lower()):
                answer = await self._client.request(subject, payload, NEVER_S, headers=headers)
        except TimeoutError:
            raise TimeoutError(f"no answer from {subject} in the time allowed") from None
        except nats.errors.NoRespondersError:
            raise RefusedError(
                f"nobody answers on {subject}: no one is subscribed to it", code=503
            ) from None
        except nats.errors.Error as error:
            raise gone(error) from None
        return answer_of(answer)

    # before a message goes out

    def _prepare(self, data: str | bytes) -> tuple[str, bytes]:
        """Return subject and payload of a message without its own destination."""
        subject = self._own_subject()
        payload = data.encode() if isinstance(data, str) else data
        self._check_size(len(payload) + self._plan.overhead)
        return subject, payload

    def _subject_of(self, outgoing: Outgoing) -> str:
        """Return the subject of a message with or without its own; RefusedError for an impossible
        subject.
        """
        if outgoing.topic is None:
            return self._own_subject()
        if not is_subject(outgoing.topic, pattern=False):
            raise RefusedError(
                f"topic={outgoing.topic[:80]!r} is no subject to write to: words joined by dots, no wildcards"
            )
        return outgoing.topic

    def _own_subject(self) -> str:
        """Return the address's subject for writing; RefusedError for an address without such a
        subject.
        """
        if self._plan.write_to is None:
            raise RefusedError("there is no one subject to write to; give write_topic=name")
        if self.elsewhere is not None:
            raise RefusedError(self.elsewhere)
        return self._plan.write_to

    def _check_size(self, size: int) -> None:
        if size > self._client.max_payload:
            raise RefusedError(
                f"the message has {size} bytes with its headers; {self._transport.peer} takes at most "
                f"{self._client.max_payload}"
            )

    def _has_room(self) -> bool:
        has_space = self._transport.writable and self._client.pending_data_size < _PENDING
        return has_space and not self._turn.locked()

    async def _wait_for_room(self, deadline: Deadline) -> bool:
        """Wait for the turn and for room in the socket.

        Returns False when the deadline came first.
        """
        if self._has_room():
            return True
        try:
            async with asyncio.timeout(deadline.timeout()), self._turn:
                while not self._transport.writable or self._client.pending_data_size >= _PENDING:
                    await self._transport.drain()
                    await asyncio.sleep(0)  # lets nats-py's writing task run
                    if self.is_over or self._client.is_closed:
                        raise ConnectionError("the link is gone")
        except TimeoutError:
            return False
        return True

    # core NATS

    async def _publish(
        self, subject: str, payload: bytes, headers: dict[str, str], reply: str = ""
    ) -> None:
        """Give the message to nats-py."""
        try:
            await self._client.publish(subject, payload, reply, headers=headers or None)
        except nats.errors.Error as error:
            raise gone(error) from None

    async def _check_allowed(self, subject: str, deadline: Deadline) -> None:
        """Wait until the server has processed a first message to the subject.

        RefusedError where it refuses.

        The server sends a refusal before it answers a later PING.
        """
        self.rights.begin_check(subject)
        try:
            await self._wait_until_seen(subject.lower(), deadline)
        finally:
            refusal = self.rights.end_check(subject)
        if refusal is not None:  # the refusal arrived together with the PONG
            raise RefusedError(refusal)
        self.rights.note_own_allowed(subject)

    async def _wait_until_seen(self, low_subject: str, deadline: Deadline) -> None:
        """Wait for a round trip, at most `_CHECK_S` seconds, or until a refusal arrives."""
        limit = Deadline(min(_CHECK_S, deadline.left()))
        try:
            async with self._waits.until_answered(limit, low_subject):
                await self._client.wait_until_seen()
        except TimeoutError:
            return  # the message is on its way, and core NATS promises no more
        except nats.errors.Error as error:
            raise gone(error) from None

    # JetStream

    async def _publish_to_stream(
        self, subject: str, payload: bytes, headers: dict[str, str], deadline: Deadline
    ) -> None:
        """Publish, and wait until the stream has acknowledged the message."""
        assert self._plan.stream is not None
        stream = self._client.jetstream()
        self.rights.begin_check(subject)
        try:
            async with self._waits.until_answered(deadline, subject.lower()):
                await stream.publish(subject, payload, timeout=NEVER_S, headers=headers or None)
        except TimeoutError:
            raise Unconfirmed(
                "the stream did not acknowledge in the time allowed; it may have the message"
            ) from None
        except js_errors.NoStreamResponseError:
            name = self._plan.stream.name
            raise RefusedError(
                f"no stream takes messages on {subject}; add it to the subjects of {name}", code=503
            ) from None
        except js_errors.APIError as error:
            raise RefusedError(
                f"the stream refused the message: {error.description}", code=error.err_code
            ) from None
        except nats.errors.Error as error:
            raise gone(error) from None
        except (ValueError, TypeError, KeyError):
            raise RefusedError(
                f"what answers on {subject} is not a stream; check stream="
            ) from None
        finally:
            self.rights.end_check(subject)

"""A message with its envelope, as `Connection.receive` returns it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

__all__ = ["Message", "Source"]


class Source(Protocol):
    """What a message needs of the connection it came over."""

    def settle(self, ticket: int | None, verdict: str, delay_ms: float) -> bool: ...

    def answer(
        self,
        message: Message,
        data: str | bytes | bytearray | memoryview,
        timeout_ms: float | None,
        headers: Mapping[str, Any] | None,
    ) -> int: ...


@dataclass(frozen=True, slots=True)
class Message:
    """One message and what came with it; what a protocol does not have is None (headers, properties: empty).

    Every scheme has `data` and `received_ns`; which of the others it has, its page in `docs/` says.
    """

    data: str | bytes
    """What `read()` would have returned."""
    received_ns: int = 0
    """When the worker had it from the network: wall clock, nanoseconds since 1970."""
    topic: str | None = None
    """The topic (mqtt, kafka), subject (nats) or routing key (amqp) it was sent to."""
    key: str | bytes | None = None
    """Kafka's key; `str` when it is valid UTF-8."""
    headers: Mapping[str, Any] = field(default_factory=dict)
    """Headers (kafka, nats, amqp) and user properties (mqtt 5). A name that came twice has a list."""
    timestamp: float | None = None
    """When it was written, by the clock of the writer or the broker: seconds since 1970."""
    offset: int | None = None
    """Kafka's offset in the partition, JetStream's sequence in the stream, AMQP's delivery tag."""
    partition: int | None = None
    redelivered: bool = False
    """The broker says that it may have been delivered before: it was not acknowledged then."""
    reply_to: str | None = None
    """Where the writer waits for an answer (nats, amqp, mqtt 5)."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """What else the protocol gives: see its page."""
    _source: Source | None = field(default=None, repr=False, compare=False)
    """The object that received it; None for a copy that was pickled."""
    _ticket: int | None = field(default=None, repr=False, compare=False)
    """By what it is acknowledged later; None where it was when it was received."""

    def ack(self) -> bool:
        """The work with a message of `receive(ack=False)` is done: the message broker may forget it.

        Returns True when the acknowledgement was handed to the link; False, with the reason in
        `last_error()`, when it could not be: the link or the worker was lost meanwhile, so that the message
        may come again, or it was acknowledged before. A message of an object of `connect` raises
        BrokenError or Unsupported instead.
        """
        return self._settled("ack")

    def nak(self, delay_ms: float = 0) -> bool:
        """The work failed, and the message is to be given to a reader again, no sooner than in `delay_ms`
        milliseconds (a day at most). By the message broker where it can (JetStream; AMQP, which forgets its
        place in the queue); else by Trunkline, ahead of what is unread. Returned and raised is what `ack`
        does."""
        return self._settled("nak", delay_ms)

    def reject(self) -> bool:
        """The message can never be worked on: the message broker gives it to nobody again (AMQP: to the
        queue's dead-letter exchange; JetStream: it is terminated). Where there is no such thing (mqtt,
        kafka): False and a reason. Else as `ack`."""
        return self._settled("reject")

    def term(self) -> bool:
        """JetStream's word for `reject`."""
        return self._settled("reject")

    def reply(
        self,
        data: str | bytes | bytearray | memoryview,
        timeout_ms: float | None = None,
        *,
        headers: Mapping[str, Any] | None = None,
    ) -> int:
        """Write an answer to where the writer of this message waits for one (`reply_to`), with the
        correlation that it gave. Returned and raised is what `Connection.write` does; ValueError when
        nobody waits for an answer."""
        if self._source is None:
            raise ValueError("a message that was pickled has no connection to answer over")
        if not self.reply_to:
            raise ValueError("nobody waits for an answer to this message: it has no reply_to")
        return self._source.answer(self, data, timeout_ms, headers)

    def _settled(self, verdict: str, delay_ms: float = 0) -> bool:
        if self._source is None:
            raise ValueError(
                f"a message that was pickled has no connection: call {verdict} on the original"
            )
        return self._source.settle(self._ticket, verdict, delay_ms)

    def __reduce__(self) -> tuple[Any, ...]:
        shown = [getattr(self, each.name) for each in fields(self) if not each.name.startswith("_")]
        return Message, tuple(shown)

    @property
    def subject(self) -> str | None:
        """NATS's word for `topic`."""
        return self.topic

    @property
    def routing_key(self) -> str | None:
        """AMQP's word for `topic`."""
        return self.topic

    @property
    def sequence(self) -> int | None:
        """JetStream's word for `offset`."""
        return self.offset

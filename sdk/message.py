"""A message with its envelope, as `Connection.receive` returns it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

__all__ = ["Message", "Source"]


class Source(Protocol):
    """The part of a connection used by a message."""

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
    """One message with its envelope.

    Every scheme gives `data` and `received_ns`. The scheme's page in `docs/` says which other
    attributes it gives; the rest are None (`headers` and `properties`: empty).
    """

    data: str | bytes
    """The data as `read()` would have returned them."""
    received_ns: int = 0
    """When the worker received the message: wall clock, nanoseconds since 1970."""
    topic: str | None = None
    """The topic (mqtt, kafka), subject (nats) or routing key (amqp) to which the message was
    sent."""
    key: str | bytes | None = None
    """Kafka's key; `str` when it is valid UTF-8."""
    headers: Mapping[str, Any] = field(default_factory=dict)
    """The headers (kafka, nats, amqp) or user properties (mqtt 5). A name that came twice has a
    list."""
    timestamp: float | None = None
    """When the message was written, by the clock of the writer or the message broker: seconds since
    1970."""
    offset: int | None = None
    """Kafka's offset in the partition, JetStream's sequence in the stream, AMQP's delivery tag."""
    partition: int | None = None
    redelivered: bool = False
    """The message broker says that it may have delivered the message before, without an
    acknowledgement."""
    reply_to: str | None = None
    """Where the writer waits for an answer (nats, amqp, mqtt 5)."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """Further values of the protocol: see the scheme's page."""
    _source: Source | None = field(default=None, repr=False, compare=False)
    """The receiving connection; None for an unpickled message."""
    _ticket: int | None = field(default=None, repr=False, compare=False)
    """The number by which the message is acknowledged later; None when `receive` has acknowledged
    it."""

    def ack(self) -> bool:
        """Acknowledge a message of `receive(ack=False)`: the message broker may forget it.

        Returns True when the acknowledgement was handed to the link. Returns False, with the reason
        in `last_error()`, when the link or the worker was lost meanwhile, so that the message may
        come again, and when the message was acknowledged before. A message of an object of
        `connect` raises BrokenError or Unsupported instead. ValueError for a message that was
        unpickled.
        """
        return self._settled("ack")

    def nak(self, delay_ms: float = 0) -> bool:
        """Give the message back, for a reader to get it again: the work has failed.

        `delay_ms`: the message comes again after so many milliseconds at the earliest (a day at
        most). The message broker delivers the message again where it can (JetStream; AMQP, which
        forgets the message's place in the queue). Elsewhere Trunkline does, ahead of the unread
        messages. Returns and raises as `ack` does.
        """
        return self._settled("nak", delay_ms)

    def reject(self) -> bool:
        """Reject the message for good: the message broker gives it to no reader again.

        AMQP moves the message to the queue's dead-letter exchange, JetStream terminates it. Where
        the protocol cannot reject (mqtt, kafka), returns False with a reason. Otherwise returns and
        raises as `ack` does.
        """
        return self._settled("reject")

    def term(self) -> bool:
        """Reject the message: JetStream's word for `reject`."""
        return self._settled("reject")

    def reply(
        self,
        data: str | bytes | bytearray | memoryview,
        timeout_ms: float | None = None,
        *,
        headers: Mapping[str, Any] | None = None,
    ) -> int:
        """Write an answer to the address at which the writer of this message waits (`reply_to`).

        The answer carries the correlation that the writer gave. Returns and raises as
        `Connection.write` does. ValueError for a message without `reply_to`, and for a message that
        was unpickled.
        """
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

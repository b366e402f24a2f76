"""A message with its envelope, as `Connection.receive` returns it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Message"]


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

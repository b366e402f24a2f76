"""The envelope of an answer, and the figures in JetStream's reply subject. No I/O."""

from __future__ import annotations

from typing import NamedTuple

from nats.aio.msg import Msg

from trunkline.actors.driver import Delivery

__all__ = ["StreamDelivery", "answer_of", "delivery_of"]

_MOST = 1 << 63
"""The server's counters have 64 bits and a sign. A larger number cannot come from a server."""


class StreamDelivery(NamedTuple):
    """The figures of a single delivery."""

    stream: str
    consumer: str
    times: int
    """How often the message was delivered, this delivery included."""
    sequence: int
    """The number of the message in the stream."""
    own: int
    """The number of this delivery among all deliveries of the consumer."""
    taken: int
    """When the stream took the message, in nanoseconds since 1970."""
    left: int
    """How many messages the consumer has not delivered yet."""


def answer_of(msg: Msg) -> Delivery:
    """Return the answer to a question as a Delivery with its envelope."""
    headers = dict(msg.headers or {}) or None
    return Delivery(msg.data, msg.subject, headers=headers, reply_to=msg.reply or None)


def delivery_of(reply: str) -> StreamDelivery:
    """Read a reply subject
    `$JS.ACK.[domain.account.]stream.consumer.times.sequence.own.taken.left[...]`.

    ValueError where the subject has another form. nats-py's `msg.metadata` reads the same, and
    takes a fifth of the time that a message costs in all.
    """
    words = reply.split(".")
    stream, consumer, *numbers = words[2:9] if len(words) == 9 else words[4:11]
    times, sequence, own, taken, left = map(int, numbers)
    if not (0 < times < _MOST and 0 < sequence < _MOST and 0 < taken < _MOST and 0 <= left < _MOST):
        raise ValueError("not a delivery of JetStream")
    return StreamDelivery(stream, consumer, times, sequence, own, taken, left)

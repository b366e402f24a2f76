"""What comes with a message: the envelope of an answer, and what JetStream's reply subject says. No I/O."""

from __future__ import annotations

from typing import NamedTuple

from nats.aio.msg import Msg

from trunkline.actors.driver import Delivery

__all__ = ["StreamDelivery", "answer_of", "delivery_of"]

_MOST = 1 << 63
"""A server counts in 64 bits; what is more cannot be a number of its."""


class StreamDelivery(NamedTuple):
    """One delivery of one message."""

    stream: str
    consumer: str
    times: int
    """How often it was delivered, this time included."""
    sequence: int
    """Its number in the stream."""
    own: int
    """Its number among the deliveries of the consumer."""
    taken: int
    """When the stream took it, in nanoseconds."""
    left: int
    """Messages that the consumer has not delivered yet."""


def answer_of(msg: Msg) -> Delivery:
    """The answer to a question, with its envelope."""
    headers = dict(msg.headers or {}) or None
    return Delivery(msg.data, msg.subject, headers=headers, reply_to=msg.reply or None)


def delivery_of(reply: str) -> StreamDelivery:
    """Read `$JS.ACK.[domain.account.]stream.consumer.times.sequence.own.taken.left[...]`. ValueError where it
    is none. nats-py's `msg.metadata` takes a fifth of a message's time for the same."""
    words = reply.split(".")
    stream, consumer, *numbers = words[2:9] if len(words) == 9 else words[4:11]
    times, sequence, own, taken, left = map(int, numbers)
    if not (0 < times < _MOST and 0 < sequence < _MOST and 0 < taken < _MOST and 0 <= left < _MOST):
        raise ValueError("not a delivery of JetStream")
    return StreamDelivery(stream, consumer, times, sequence, own, taken, left)

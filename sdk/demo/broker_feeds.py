"""The feeds and the events of the brokers' demo. Pure.

A feed is a way of using a broker, with a guarantee: numbered ticks from a publisher to a strategy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BROKERS", "EVENTS", "Event", "Feed", "events", "feeds_of"]

BROKERS = ("mqtt", "nats", "amqp", "kafka")
"""The names that `--brokers` accepts."""
# Reconnects sooner than usual, because a demo is short.
_INTERVAL = "|interval=300"
# Milliseconds until JetStream sends a killed worker's messages again.
_AGAIN = "ack_wait=3000"
# Milliseconds until Kafka gives a killed member's partitions to another member.
_SESSION = "session.timeout.ms=6000"


@dataclass(frozen=True, slots=True)
class Feed:
    """A way of using a broker."""

    name: str
    broker: str
    """A name of BROKERS."""
    topic: str
    """Topic, subject or queue. No other feed has the same topic."""
    read: str
    """The strategy's address."""
    write: str
    """The publisher's address."""
    acknowledged: bool
    """The broker keeps every message until a reader has acknowledged the message."""

    @property
    def guarantee(self) -> str:
        return "at least once" if self.acknowledged else "at most once"


def feeds_of(broker: str, at: str, secret: str, topic: str = "ticks") -> list[Feed]:
    """The feeds of a broker.

    `at`: the broker's host:port. `secret`: the broker's token or password, if any.
    `topic`: the name of Kafka's topic; a Kafka of the user's may have other topics.
    """
    return _FEEDS[broker](at, secret, topic)


def _mqtt_feeds(at: str, secret: str, topic: str) -> list[Feed]:
    kept, passing = "ticks/qos1", "ticks/qos0"
    return [
        Feed(
            "mqtt qos 1",
            "mqtt",
            kept,
            f"mqtt://{at}?topic={kept}&qos=1&clean=false&client_id=strategy{_INTERVAL}",
            f"mqtt://{at}?write_topic={kept}&qos=1{_INTERVAL}",
            True,
        ),
        Feed(
            "mqtt qos 0",
            "mqtt",
            passing,
            f"mqtt://{at}?topic={passing}{_INTERVAL}",
            f"mqtt://{at}?write_topic={passing}{_INTERVAL}",
            False,
        ),
    ]


def _nats_feeds(at: str, secret: str, topic: str) -> list[Feed]:
    kept, passing = "ticks.stream", "ticks.core"
    server = f"nats://{secret}@{at}"
    return [
        Feed(
            "jetstream",
            "nats",
            kept,
            f"{server}?stream=TICKS&topic={kept}&durable=strategy&{_AGAIN}{_INTERVAL}",
            f"{server}?stream=TICKS&write_topic={kept}{_INTERVAL}",
            True,
        ),
        Feed(
            "nats",
            "nats",
            passing,
            f"{server}?topic={passing}{_INTERVAL}",
            f"{server}?write_topic={passing}{_INTERVAL}",
            False,
        ),
    ]


def _amqp_feeds(at: str, secret: str, topic: str) -> list[Feed]:
    server = f"amqp://demo:{secret}@{at}/"
    return [
        Feed(
            "amqp durable",
            "amqp",
            "ticks",
            f"{server}?queue=ticks&durable=true{_INTERVAL}",
            f"{server}?write_topic=ticks&persistent=true{_INTERVAL}",
            True,
        )
    ]


def _kafka_feeds(at: str, secret: str, topic: str) -> list[Feed]:
    return [
        Feed(
            "kafka group",
            "kafka",
            topic,
            f"kafka://{at}/{topic}?group={topic}&offset=earliest&{_SESSION}{_INTERVAL}",
            f"kafka://{at}?write_topic={topic}{_INTERVAL}",
            True,
        )
    ]


_FEEDS = {"mqtt": _mqtt_feeds, "nats": _nats_feeds, "amqp": _amqp_feeds, "kafka": _kafka_feeds}


@dataclass(frozen=True, slots=True)
class Event:
    """`what` is done to `broker` when the part `part` of the demo's time is over."""

    part: float
    what: str
    broker: str


EVENTS = ((0.2, "restart"), (0.42, "freeze"), (0.64, "kill"))
"""The kinds of events, with their parts of the demo's time.

A broker is restarted, a broker is frozen, and the workers that read from a broker are killed.
"""
# RabbitMQ takes seconds to start. The demo freezes RabbitMQ and restarts another broker if
# possible.
_PREFERRED = {
    "restart": ("mqtt", "nats", "kafka", "amqp"),
    "freeze": ("amqp", "kafka", "nats", "mqtt"),
    "kill": ("nats", "kafka", "mqtt", "amqp"),
}
_LAST_PART = 0.78


def events(brokers: Sequence[str], foreign: Sequence[str] = ()) -> list[Event]:
    """Plan every kind of event once, if possible for different brokers.

    A broker without an event has its workers killed. The demo neither restarts nor freezes
    `foreign` brokers.
    """
    made: list[Event] = []
    for part, what in EVENTS:
        able = [
            b for b in _PREFERRED[what] if b in brokers and (what == "kill" or b not in foreign)
        ]
        hit = {event.broker for event in made}
        # The sort is stable: preferred brokers stay in front.
        able.sort(key=lambda broker: broker in hit)
        made += [Event(part, what, broker) for broker in able[:1]]
    hit = {event.broker for event in made}
    return made + [Event(_LAST_PART, "kill", broker) for broker in brokers if broker not in hit]

"""What the brokers' demo reads and writes, and what happens to whom. Pure.

A feed is one way to use a broker, with the guarantee it gives: numbered ticks from a publisher to a strategy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BROKERS", "EVENTS", "Event", "Feed", "events", "feeds_of"]

BROKERS = ("mqtt", "nats", "amqp", "kafka")
"""As `--brokers` takes them."""
# Quicker than usual: a demo does not last long.
_INTERVAL = "|interval=300"
# How soon JetStream sends again what a killed worker had.
_AGAIN = "ack_wait=3000"
# How soon Kafka gives a killed member's partitions to another.
_SESSION = "session.timeout.ms=6000"


@dataclass(frozen=True, slots=True)
class Feed:
    """One way to use a broker."""

    name: str
    broker: str
    """One of BROKERS."""
    topic: str
    """Topic, subject or queue; no other feed has it."""
    read: str
    """The strategy's address."""
    write: str
    """The publisher's address."""
    acknowledged: bool
    """The broker keeps each message until a reader has it."""

    @property
    def guarantee(self) -> str:
        return "at least once" if self.acknowledged else "at most once"


def feeds_of(broker: str, at: str, secret: str, topic: str = "ticks") -> list[Feed]:
    """The feeds of a broker that serves `at` host:port. `secret` is its token or password, where it has one;
    `topic` is what Kafka's topic is called, for that may be somebody else's Kafka."""
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
    """`what` is done to `broker` when this part of the demo's time is over."""

    part: float
    what: str
    broker: str


EVENTS = ((0.2, "restart"), (0.42, "freeze"), (0.64, "kill"))
"""When the broker is restarted and frozen, and when its readers' workers are killed."""
# RabbitMQ takes seconds to start, so that it is frozen where there is another to restart.
_PREFERRED = {
    "restart": ("mqtt", "nats", "kafka", "amqp"),
    "freeze": ("amqp", "kafka", "nats", "mqtt"),
    "kill": ("nats", "kafka", "mqtt", "amqp"),
}
_LAST_PART = 0.78


def events(brokers: Sequence[str], foreign: Sequence[str] = ()) -> list[Event]:
    """Each kind once, if possible to different ones; who would be spared has its workers killed too. Those
    that are `foreign` are not ours to restart and to freeze."""
    made: list[Event] = []
    for part, what in EVENTS:
        able = [
            b for b in _PREFERRED[what] if b in brokers and (what == "kill" or b not in foreign)
        ]
        hit = {event.broker for event in made}
        able.sort(key=lambda broker: broker in hit)  # stable: the preferred ones stay in front
        made += [Event(part, what, broker) for broker in able[:1]]
    hit = {event.broker for event in made}
    return made + [Event(_LAST_PART, "kill", broker) for broker in brokers if broker not in hit]

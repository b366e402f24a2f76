"""The parameters of the message brokers, one row each: written as a query, or among the options.

`PARAMS` is the single source of their names, types and help, as `OPTIONS` is for the options; the reference
page is written from both. Reading a given value is `trunkline.address.broker_values`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from trunkline.address.nearest import nearest

__all__ = ["PARAMS", "Param", "find_param", "owners"]


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter: how it is written and what it means."""

    name: str
    kind: str
    """`name` and `names` (text without control characters; several: repeated, or a comma list), `text`,
    `bool`, `count` (a whole number), `enum`, `file`, `offset` and `deliver` (where to start reading),
    `property` (librdkafka's own) and `argument` (AMQP's `x-...`)."""
    help: str
    choices: tuple[str, ...] = ()
    low: int = 0
    high: int = 2**31 - 1
    secret: bool = False
    """The value is never shown, not even in the error that refuses it."""
    also: tuple[str, ...] = ()
    """Other names for the same."""


_LOGIN = (
    Param("username", "text", "user, where it does not stand before the host"),
    Param("password", "text", "password, where it does not stand before the host", secret=True),
)

_MQTT = (
    Param("topic", "names", "what to read, wildcards allowed; several are possible"),
    Param("write_topic", "name", "where to write: the first `topic` without a wildcard when left out"),
    Param("qos", "count", "quality of service of reading and writing: 0, 1 or 2", high=2),
    Param("retain", "bool", "written messages are kept for later subscribers"),
    Param("client_id", "name", "the session's name"),
    Param("clean", "bool", "false: the server keeps the session of `client_id`"),
    Param("version", "enum", "of the protocol", choices=("3.1.1", "5")),
    Param("will_topic", "name", "where the server writes when the link is lost"),
    Param("will_payload", "text", "what it writes then", secret=True),
    Param("will_qos", "count", "quality of service of the will", high=2),
    Param("will_retain", "bool", "the will is kept for later subscribers"),
    Param("session_expiry", "count", "life of a kept session without a link, s (version 5)", high=2**32 - 1),
    Param(
        "retain_handling",
        "count",
        "retained messages come with each subscription (0), only with a new one (1), never (2) (version 5)",
        high=2,
    ),
    Param("no_local", "bool", "what this connection writes does not come back to it (version 5)"),
    *_LOGIN,
)
_NATS = (
    Param("topic", "names", "what to read, wildcards allowed; several are possible", also=("subject",)),
    Param(
        "write_topic",
        "name",
        "where to write: the first `topic` without a wildcard when left out",
        also=("write_subject",),
    ),
    Param("queue", "name", "queue group: its members share the messages"),
    Param("stream", "name", "JetStream: read from this stream, with acknowledgements"),
    Param("durable", "name", "JetStream: name of the consumer that the server remembers"),
    Param(
        "deliver",
        "deliver",
        "JetStream: where a new consumer starts",
        choices=("all", "last", "new", "last_per_subject"),
    ),
    Param("ack_wait", "count", "JetStream: delivered again when not acknowledged after so many ms", low=1),
    Param("max_ack_pending", "count", "JetStream: messages delivered and not yet acknowledged", low=1),
    Param("token", "text", "login by token", secret=True),
    Param("creds", "file", "login by a credentials file", secret=True),
    Param("nkey", "file", "login by the seed in this file (or by the seed itself)", secret=True),
    Param("name", "name", "the connection's name, for the server's monitoring"),
    *_LOGIN,
)
_AMQP = (
    Param("queue", "name", "what to read; declared where it does not exist"),
    Param("exchange", "name", "where to write, and what the queue is bound to"),
    Param("type", "enum", "of the exchange, or x-...", choices=("direct", "fanout", "topic", "headers")),
    Param("routing_key", "names", "bindings of the queue; several are possible"),
    Param(
        "write_topic",
        "name",
        "routing key of written messages: the first `routing_key`, else the queue, when left out",
        also=("write_key",),
    ),
    Param("durable", "bool", "queue and exchange survive a restart of the server"),
    Param("exclusive", "bool", "the queue is this connection's alone"),
    Param("auto_delete", "bool", "the queue goes when its last reader has gone"),
    Param("passive", "bool", "nothing is declared or bound: the queue and the exchange have to exist"),
    Param("x-...", "argument", "an argument of the queue (x-queue-type), or of reading it (x-stream-offset)"),
    Param("prefetch", "count", "messages delivered and not yet acknowledged", high=65_535),
    Param("heartbeat", "count", "of the protocol, s; 0 is off", high=65_535),
    Param("persistent", "bool", "written messages survive a restart of the server"),
    Param("mandatory", "bool", "a message that reaches no queue is refused"),
    Param("name", "name", "the connection's name, for the server's monitoring"),
    *_LOGIN,
)
_KAFKA = (
    Param("topic", "names", "what to read, also written as the path; several are possible"),
    Param("write_topic", "name", "where to write: the first `topic` when left out"),
    Param("group", "name", "consumer group: offsets are committed", also=("group.id", "group_id")),
    Param(
        "offset",
        "offset",
        "where to start reading: `earliest`, `latest`, an offset, or a time such as 2026-01-31T12:00:00Z",
        choices=("earliest", "latest"),
    ),
    Param("partition", "count", "the only partition to read and write"),
    Param("key", "text", "key of written messages", secret=True),
    *_LOGIN,
)

PARAMS: dict[str, dict[str, Param]] = {
    protocol: {row.name: row for row in rows}
    for protocol, rows in (("mqtt", _MQTT), ("nats", _NATS), ("amqp", _AMQP), ("kafka", _KAFKA))
}
"""By protocol (`mqtts` and `ws+mqtt` are mqtt, and so on) and name."""

_BY_NAME = {
    protocol: {name: row for row in rows.values() for name in (row.name, *row.also)}
    for protocol, rows in PARAMS.items()
}
# librdkafka's own names: dotted, or with underscores for the dots; a few are one word
_PROPERTY = re.compile(r"[a-z]+(?:[._][a-z0-9]+)+")
_PROPERTY_WORDS = frozenset(("acks", "retries", "debug", "partitioner"))
_ARGUMENT = re.compile(r"x-[a-z0-9-]{1,60}")
_UNDERSCORED = frozenset(("log_level", "enabled_events"))
# the servers stand in the address
_TAKEN = frozenset(("bootstrap.servers", "metadata.broker.list"))


def find_param(protocol: str, name: str) -> Param | None:
    """The row of the parameter of that name, other names included; None where the protocol has none such.
    For librdkafka's properties a row is made up, under the name with dots, and for AMQP's arguments."""
    known = _BY_NAME.get(protocol, {}).get(name)
    if known is None and protocol == "kafka":
        return _property(name)
    if known is None and protocol == "amqp" and _ARGUMENT.fullmatch(name):
        return Param(name, "argument", "an argument of AMQP")
    return None if known is not None and known.kind == "argument" else known


def _property(name: str) -> Param | None:
    if name in _PROPERTY_WORDS:
        return Param(name, "property", "a property of librdkafka")
    dotted = name if "." in name or name in _UNDERSCORED else name.replace("_", ".")
    if dotted in _TAKEN or not _PROPERTY.fullmatch(name):
        return None
    # what is nobody's property is told here, for librdkafka would tell it in words about dots
    foreign = "." not in name and name != "client_id" and owners(name)
    slip = "." not in name and nearest(name, PARAMS["kafka"], cutoff=0.85)
    return None if foreign or slip else Param(dotted, "property", "a property of librdkafka")


def owners(name: str) -> list[str]:
    """The protocols that have a parameter of this name."""
    return [protocol for protocol, rows in _BY_NAME.items() if name in rows]

"""AMQP 0-9-1: amqp and amqps."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from trunkline.address.schemes.model import (
    LOGIN,
    MESSAGES,
    NAMED_TLS,
    PING_20_S,
    RECONNECTS,
    TRUST,
    BrokerParts,
    Param,
    Scheme,
)

__all__ = ["ROWS"]

_PARAMS = (
    Param("queue", "name", "what to read; declared where it does not exist"),
    Param("exchange", "name", "where to write, and what the queue is bound to"),
    Param(
        "type",
        "enum",
        "of the exchange, or x-...",
        choices=("direct", "fanout", "topic", "headers"),
    ),
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
    Param(
        "passive", "bool", "nothing is declared or bound: the queue and the exchange have to exist"
    ),
    Param(
        "x-...",
        "argument",
        "an argument of the queue (x-queue-type), or of reading it (x-stream-offset)",
    ),
    Param("prefetch", "count", "messages delivered and not yet acknowledged", high=65_535),
    Param("heartbeat", "count", "of the protocol, s; 0 is off", high=65_535),
    Param("persistent", "bool", "written messages survive a restart of the server"),
    Param("mandatory", "bool", "a message that reaches no queue is refused"),
    Param("name", "name", "the connection's name, for the server's monitoring"),
    *LOGIN,
)

_ARGUMENT = re.compile(r"x-[a-z0-9-]{1,60}")


def _make_param(name: str, foreign: bool) -> Param | None:
    """The row of an argument of the queue or of its consumer; None for other names."""
    return Param(name, "argument", "an argument of AMQP") if _ARGUMENT.fullmatch(name) else None


def _read_extra(parts: BrokerParts) -> dict[str, Any]:
    """`vhost`, `queue` and `routing_keys`."""
    return {
        "vhost": parts.path[1:] or "/",
        "queue": parts.params.get("queue"),
        "routing_keys": parts.given.get("routing_key", []),
    }


_ROW = Scheme(
    name="amqp",
    family="broker",
    example="amqp://user:password@host/?queue=name",
    more_examples=("amqp://user:password@host/vhost?queue=orders",),
    driver="trunkline.actors.drivers.amqp.driver:AmqpDriver",
    port=5672,
    extra="amqp",
    packages=("pika",),
    mistaken=("rabbitmq",),
    options=(*MESSAGES, *TRUST),
    defaults=(RECONNECTS, PING_20_S),
    protocol="amqp",
    params=_PARAMS,
    make_param=_make_param,
    beat="heartbeat",
    needs=("queue", "exchange", "routing_key", "write_topic"),
    subjects=("queue", "exchange", "write_topic", "routing_key"),
    path_holds="vhost",
    read_extra=_read_extra,
    elsewhere=(("vhost", "the virtual host is the path, as in amqp://host/vhost?queue=name"),),
)

ROWS = (
    _ROW,
    replace(
        _ROW,
        name="amqps",
        more_examples=(),
        example="amqps://user:password@host/?queue=name",
        port=5671,
        tls=True,
        mistaken=("amqp+ssl",),
        options=(*MESSAGES, *NAMED_TLS),
    ),
)

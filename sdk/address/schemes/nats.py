"""NATS: nats and tls+nats."""

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
    BrokerParts,
    Param,
    Scheme,
    read_topics,
)
from trunkline.errors import AddressError

__all__ = ["ROWS"]

_PARAMS = (
    Param(
        "topic", "names", "what to read, wildcards allowed; several are possible", also=("subject",)
    ),
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
    Param(
        "ack_wait",
        "count",
        "JetStream: delivered again when not acknowledged after so many ms",
        low=1,
    ),
    Param(
        "max_ack_pending", "count", "JetStream: messages delivered and not yet acknowledged", low=1
    ),
    Param("token", "text", "login by token", secret=True),
    Param("creds", "file", "login by a credentials file", secret=True),
    Param("nkey", "file", "login by the seed in this file (or by the seed itself)", secret=True),
    Param("name", "name", "the connection's name, for the server's monitoring"),
    *LOGIN,
)


def _read_extra(parts: BrokerParts) -> dict[str, Any]:
    """`topic`, `topics`, and `token` if the address has a token; raises AddressError."""
    for name in ("topic", "write_topic", "queue"):
        if any(re.search(r"\s", text) for text in parts.given.get(name, [])):
            raise AddressError(f"parameter '{name}' does not take a value with a space in it")
    # NATS clients treat a user without a password as a token.
    token = parts.user if parts.password is None else None
    if token is not None and "token" in parts.params:
        raise AddressError("a nats address names its token twice: write it once")
    extra = read_topics(parts)
    if token is not None or "token" in parts.params:
        extra["token"] = parts.params.get("token", token)
    return extra


_ROW = Scheme(
    name="nats",
    family="broker",
    example="nats://host?topic=name",
    more_examples=("nats://token@host1,host2:4223?topic=orders.>&queue=workers",),
    driver="trunkline.actors.drivers.nats.driver:NatsDriver",
    port=4222,
    extra="nats",
    packages=("nats-py", "nkeys"),
    options=(*MESSAGES, *NAMED_TLS),
    defaults=(RECONNECTS, PING_20_S),
    protocol="nats",
    params=_PARAMS,
    needs=("topic", "stream", "write_topic"),
    subjects=("topic", "stream", "write_topic"),
    read_extra=_read_extra,
)

ROWS = (
    _ROW,
    replace(
        _ROW,
        name="tls+nats",
        more_examples=(),
        example="tls+nats://host?topic=name",
        tls=True,
        mistaken=("nats+tls",),
    ),
)

"""Turns pika's messages into deliveries."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from trunkline.actors.driver import Delivery
from trunkline.actors.drivers.amqp.header import Properties

__all__ = ["delivery"]

_LONG_BODY = 4096
_OWN_FIELDS = frozenset(("headers", "timestamp", "reply_to"))
_COUNTS = frozenset(("x-delivery-count", "x-acquired-count"))
"""Headers with a quorum queue's count of deliveries, which differs each time."""


class _Identity:
    """The identity of a message.

    AMQP has no identities, so all parts of a message serve as its identity.

    Identities are compared only after a lost link, and nothing is computed before. A long body is
    kept as a digest, which saves a second copy.
    """

    __slots__ = ("_body", "_properties", "_route")

    def __init__(self, exchange: str, key: str, properties: Properties, body: bytes) -> None:
        self._route = (exchange, key)
        self._properties = properties
        self._body = body if len(body) <= _LONG_BODY else blake2b(body).digest()

    def __hash__(self) -> int:
        return hash((self._route, self._body))

    def __eq__(self, other: object) -> bool:
        """Whether two deliveries carry the same message: route, body and lasting properties are
        equal.
        """
        return (
            isinstance(other, _Identity)
            and self._route == other._route
            and self._body == other._body
            and _same(self._properties, other._properties)
        )


def _same(one: Properties, other: Properties) -> bool:
    return one.raw == other.raw or _lasting(one) == _lasting(other)


def _lasting(properties: Properties) -> dict[str, Any]:
    """Return the properties that stay equal when a message comes again."""
    headers = {
        name: value for name, value in (properties.headers or {}).items() if name not in _COUNTS
    }
    return {**vars(properties), "headers": headers}


def delivery(
    method: Any, properties: Properties, body: bytes, *, settled: bool = False
) -> Delivery:
    """Return a message as a `Delivery`. `settled`: the broker expects no acknowledgement."""
    tag, key, exchange = method.delivery_tag, _text(method.routing_key), _text(method.exchange)
    others = {
        name: value
        for name, value in vars(properties).items()
        if value is not None and name not in _OWN_FIELDS
    }
    if exchange:
        others["exchange"] = exchange
    timestamp = properties.timestamp
    return Delivery(
        body,
        key,
        None,
        properties.headers,
        float(timestamp) if timestamp is not None else None,
        tag,
        None,
        method.redelivered,
        _text(properties.reply_to) if properties.reply_to is not None else None,
        others or None,
        None if settled else tag,
        None if settled else _Identity(exchange, key, properties, body),
    )


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode(errors="replace")

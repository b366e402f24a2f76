"""The `x-...` arguments of AMQP.

RabbitMQ refuses an argument whose value has the wrong type. Pure.
"""

from __future__ import annotations

import re

__all__ = ["argument_value"]

_NUMBERS = frozenset(
    (
        "x-message-ttl",
        "x-expires",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-in-memory-length",
        "x-max-in-memory-bytes",
        "x-max-priority",
        "x-priority",
        "x-delivery-limit",
        "x-quorum-initial-group-size",
        "x-quorum-target-group-size",
        "x-initial-cluster-size",
        "x-stream-max-segment-size-bytes",
        "x-stream-filter-size-bytes",
        "x-queue-version",
        "x-consumer-timeout",
    )
)
_BOOLEANS = frozenset(
    ("x-single-active-consumer", "x-cancel-on-ha-failover", "x-stream-match-unfiltered")
)
_TEXTS = frozenset(
    (
        "x-queue-type",
        "x-queue-mode",
        "x-queue-master-locator",
        "x-queue-leader-locator",
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-dead-letter-strategy",
        "x-overflow",
        "x-max-age",
        "x-delayed-type",
        "x-stream-filter",
    )
)
_TRUE, _FALSE = ("true", "yes"), ("false", "no")
_NUMBER = re.compile(r"-?[0-9]{1,18}")


def argument_value(name: str, text: str) -> bool | int | str:
    """An argument's value in its type.

    For a name that RabbitMQ itself does not know, digits are a number, and true and false are
    booleans. ValueError says what is accepted.
    """
    lower = text.lower()
    if name in _TEXTS:
        return text
    if name in _BOOLEANS:
        if lower not in (*_TRUE, *_FALSE, "1", "0"):
            raise ValueError("use true or false")
        return lower in (*_TRUE, "1")
    if _NUMBER.fullmatch(text):
        return int(text)
    if name in _NUMBERS:
        raise ValueError("use a whole number")
    return lower == "true" if lower in ("true", "false") else text

"""What paho hands over with a message, as a `Delivery`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import paho.mqtt.client as paho

from trunkline.actors.driver import Delivery
from trunkline.actors.drivers.mqtt_session import Session

__all__ = ["delivery_of"]

_PLAIN = {(qos, kept): {"qos": qos, "retain": kept} for qos in (0, 1, 2) for kept in (False, True)}
_NAMES = {
    "ContentType": "content_type",
    "CorrelationData": "correlation_data",
    "MessageExpiryInterval": "message_expiry",
    "PayloadFormatIndicator": "payload_format",
    "SubscriptionIdentifier": "subscription_id",
}


def delivery_of(message: paho.MQTTMessage, qos: int, session: Session) -> Delivery:
    """`qos`: what the message was sent with; by its token it is acknowledged, by its identity known again."""
    try:
        topic = message.topic
    except UnicodeDecodeError:
        topic = None
    payload = bytes(message.payload)
    token, identity = None, None
    if qos:
        content = hash((topic, payload))
        token, identity = (message.mid, qos, content), session.identity(message.mid, content)
    plain = _PLAIN[qos, bool(message.retain)]
    found = message.properties
    if found is None:
        return Delivery(
            payload,
            topic,
            redelivered=message.dup,
            properties=plain,
            token=token,
            identity=identity,
        )
    more = {name: getattr(found, theirs) for theirs, name in _NAMES.items() if hasattr(found, theirs)}
    return Delivery(
        payload,
        topic,
        headers=_headers(getattr(found, "UserProperty", ())),
        redelivered=message.dup,
        reply_to=getattr(found, "ResponseTopic", None),
        properties={**plain, **more},
        token=token,
        identity=identity,
    )


def _headers(pairs: Sequence[tuple[str, str]]) -> dict[str, Any] | None:
    """A name that is there more than once has a list."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found or None

"""The envelope of an MQTT message: read as a `Delivery`, written as properties. No I/O."""

from __future__ import annotations

from math import ceil
from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from trunkline.actors.driver import Delivery, Outgoing
from trunkline.actors.drivers.mqtt.packet import Publish
from trunkline.actors.drivers.mqtt.plan import Plan, user_properties
from trunkline.actors.drivers.mqtt.session import Session
from trunkline.errors import RefusedError, Unsupported

__all__ = [
    "addressed_properties",
    "delivery_of",
    "own_properties",
    "properties_for",
    "written_properties",
]

_LONGEST_EXPIRY_S = (1 << 32) - 1
_PLAIN = {(qos, kept): {"qos": qos, "retain": kept} for qos in (0, 1, 2) for kept in (False, True)}


def delivery_of(message: Publish, session: Session) -> Delivery:
    """Return a message as a `Delivery`.

    The token acknowledges the message, and the identity recognises a copy.
    """
    qos = message.qos
    token, identity = None, None
    if qos:
        content = hash((message.topic, message.payload))
        token, identity = (message.number, qos, content), session.identity(message.number, content)
    plain = _PLAIN[qos, message.kept]
    return Delivery(
        message.payload,
        message.topic,
        headers=message.headers,
        redelivered=message.again,
        reply_to=message.reply_to,
        properties={**plain, **message.properties} if message.properties else plain,
        token=token,
        identity=identity,
    )


def properties_for(packet_type: int) -> Any:
    """Return empty properties of MQTT 5 for a kind of packet."""
    return Properties(packet_type)  # type: ignore[no-untyped-call]


def own_properties(plan: Plan) -> Any:
    """Return the address's properties for each message, or None."""
    if not plan.headers:
        return None
    found = properties_for(PacketTypes.PUBLISH)
    found.UserProperty = list(plan.headers)
    return found


def written_properties(plan: Plan) -> Any:
    """Return the same as `own_properties`, or empty properties, for adding more."""
    return own_properties(plan) or properties_for(PacketTypes.PUBLISH)


def addressed_properties(plan: Plan, outgoing: Outgoing) -> Any:
    """Return the properties of a message with its own destination; None for MQTT 3.1.1.

    RefusedError for a value that cannot be sent, Unsupported for fields that MQTT 3.1.1 does not
    have.
    """
    if not plan.v5:
        if outgoing.fields() <= {"topic", "answers"}:
            return None
        raise Unsupported(
            "MQTT 3.1.1 messages have a topic alone: give version=5 for headers and the rest"
        )
    found = written_properties(plan)
    try:
        if outgoing.headers is not None:
            found.UserProperty = user_properties(outgoing.headers)
        if outgoing.expiry_ms is not None:
            found.MessageExpiryInterval = min(ceil(outgoing.expiry_ms / 1000), _LONGEST_EXPIRY_S)
        if outgoing.reply_to is not None:
            found.ResponseTopic = outgoing.reply_to
        if outgoing.correlation is not None:
            given = outgoing.correlation
            found.CorrelationData = given.encode() if isinstance(given, str) else given
        found.pack()
    except Exception as error:  # paho's MQTTException derives from Exception only
        raise RefusedError(f"the message cannot be sent: {error}") from None
    return found

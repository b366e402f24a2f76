"""A message of MQTT as a `Delivery`."""

from __future__ import annotations

from trunkline.actors.driver import Delivery
from trunkline.actors.drivers.mqtt.packet import Publish
from trunkline.actors.drivers.mqtt.session import Session

__all__ = ["delivery_of"]

_PLAIN = {(qos, kept): {"qos": qos, "retain": kept} for qos in (0, 1, 2) for kept in (False, True)}


def delivery_of(message: Publish, session: Session) -> Delivery:
    """By its token the message is acknowledged, by its identity known again."""
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

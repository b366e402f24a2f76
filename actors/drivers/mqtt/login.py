"""The fields of MQTT 5 in the login to a broker and in the goodbye. No I/O."""

from __future__ import annotations

from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.mqtt import errors
from trunkline.actors.drivers.mqtt.envelope import properties_for
from trunkline.actors.drivers.mqtt.plan import Plan
from trunkline.actors.drivers.mqtt.session import Session

__all__ = ["check_limits", "goodbye", "login_options"]


def login_options(plan: Plan, session: Session) -> dict[str, Any]:
    """Return arguments of paho's `connect` that only MQTT 5 has."""
    if not plan.v5:
        return {}
    found = properties_for(PacketTypes.CONNECT)
    if plan.expiry:
        found.SessionExpiryInterval = plan.expiry
    found.ReceiveMaximum = plan.receive_maximum
    found.MaximumPacketSize = plan.largest
    # A `clean` connection begins with an empty session. After an outage it resumes its own session.
    clean = plan.clean and not (session.begun and plan.persistent)
    return {"clean_start": clean, "properties": found}


def check_limits(plan: Plan, found: Any, peer: str) -> None:
    """Raise FatalError where the broker cannot take what the address writes.

    `found`: the properties of the broker's answer to the login (MQTT 5).
    """
    if not plan.v5 or plan.write_topic is None:
        return
    highest = getattr(found, "MaximumQoS", 2)
    if plan.qos > highest:
        raise FatalError(f"{peer} takes messages of QoS {highest} at most; give qos={highest}")
    if plan.retain and not getattr(found, "RetainAvailable", 1):
        raise FatalError(f"{peer} keeps no retained messages; leave retain out")


def goodbye(plan: Plan, *, with_will: bool) -> tuple[ReasonCode, Any] | tuple[()]:
    """Return arguments for paho's `disconnect`; none with MQTT 3.1.1.

    `with_will`: the broker must publish the will nevertheless, because the program has died.
    """
    if not plan.v5:
        return ()
    found = None
    if plan.clean and plan.session_expiry is None and plan.expiry:
        found = properties_for(PacketTypes.DISCONNECT)
        found.SessionExpiryInterval = 0  # was kept for outages only
    code = errors.WITH_WILL if with_will else 0
    return ReasonCode(PacketTypes.DISCONNECT, identifier=code), found

"""The parameters of the message brokers, by protocol: written as a query, or among the options.

`PARAMS` holds the rows of the schemes; the reference page is written from it. Reading a given
value is `trunkline.address.broker_values`.
"""

from __future__ import annotations

import re

from trunkline.address.nearest import nearest
from trunkline.address.schemes import SCHEMES, Param, Scheme

__all__ = ["PARAMS", "find_param", "is_param", "owners"]


PARAMS: dict[str, dict[str, Param]] = {
    scheme.protocol: {row.name: row for row in scheme.params}
    for scheme in SCHEMES.values()
    if scheme.protocol
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


def is_param(scheme: Scheme, name: str) -> bool:
    """Whether `name` is a parameter of this broker."""
    return find_param(scheme.protocol, name) is not None

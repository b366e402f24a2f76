"""The parameters of the message brokers, by protocol: written as a query, or among the options.

`PARAMS` holds the rows of the schemes; the reference page is written from it. Reading a given
value is `trunkline.address.broker_values`.
"""

from __future__ import annotations

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
_MAKERS = {scheme.protocol: scheme.make_param for scheme in SCHEMES.values() if scheme.protocol}


def find_param(protocol: str, name: str) -> Param | None:
    """The row of the parameter of that name, other names included; None where the protocol has none such.
    For a name that a library or the protocol leaves open, the scheme makes a row (`Scheme.make_param`)."""
    if protocol not in PARAMS:
        return None
    known = _BY_NAME[protocol].get(name)
    if known is None:
        return _MAKERS[protocol](name, bool(owners(name)))
    return None if known.kind == "argument" else known


def owners(name: str) -> list[str]:
    """The protocols that have a parameter of this name."""
    return [protocol for protocol, rows in _BY_NAME.items() if name in rows]


def is_param(scheme: Scheme, name: str) -> bool:
    """Whether `name` is a parameter of this broker."""
    return find_param(scheme.protocol, name) is not None

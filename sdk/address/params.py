"""The parameters of message brokers, by protocol. A parameter stands in the query or among the
options.

`PARAMS` holds the rows of the schemes, and the reference page is generated from it.
`trunkline.address.broker_values` reads a given value.
"""

from __future__ import annotations

from trunkline.address.schemes import SCHEMES, Param, Scheme

__all__ = ["PARAMS", "find_param", "is_param", "owners"]


PARAMS: dict[str, dict[str, Param]] = {
    scheme.protocol: {row.name: row for row in scheme.params}
    for scheme in SCHEMES.values()
    if scheme.protocol
}
"""Rows by protocol and name. `mqtts` and `ws+mqtt` share the protocol mqtt, and so on."""

_BY_NAME = {
    protocol: {name: row for row in rows.values() for name in (row.name, *row.also)}
    for protocol, rows in PARAMS.items()
}
_MAKERS = {scheme.protocol: scheme.make_param for scheme in SCHEMES.values() if scheme.protocol}


def find_param(protocol: str, name: str) -> Param | None:
    """The row of the parameter `name`, which may be another name of the parameter; None for an
    unknown name.

    For names that a library or the protocol leaves open, `Scheme.make_param` makes a row.
    """
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
    """Whether `name` is a parameter of this scheme."""
    return find_param(scheme.protocol, name) is not None

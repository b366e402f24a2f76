"""The error for a name that is neither an option nor a parameter of the scheme."""

from __future__ import annotations

import re

from trunkline.address.golang import shown
from trunkline.address.nearest import nearest
from trunkline.address.options import OPTIONS
from trunkline.address.params import PARAMS, owners
from trunkline.address.redaction import redact
from trunkline.address.schemes import Scheme
from trunkline.errors import AddressError

__all__ = ["misplaced_option", "unknown_option"]


def unknown_option(name: str, scheme: Scheme, before: str = "") -> AddressError:
    """The error for a name that is no option: says where the name belongs, or suggests the nearest
    name.

    `before` is the address before the name. If `before` ends with a secret, the name may be the
    rest of the secret, and is not shown.
    """
    elsewhere = dict(scheme.elsewhere).get(name)
    if elsewhere:
        return AddressError(f"there is no parameter '{name}': {elsewhere}")
    own = PARAMS.get(scheme.protocol, {})
    others = owners(name) if own else []
    if others:
        return AddressError(
            f"parameter '{name}' belongs to {' and '.join(others)}: {scheme.protocol} takes {', '.join(own)}"
        )
    near = nearest(name, [*OPTIONS, *own, *(other for row in own.values() for other in row.also)])
    if near:
        return AddressError(f"unknown option '{shown(name)}': did you mean '{near}'")
    hint = "see `trunkline dial --help` for the options there are, and write & in a value as %26"
    if _ends_with_a_secret(before):
        return AddressError(f"the address has an unknown option: {hint}")
    return AddressError(f"unknown option '{shown(name)}': {hint}")


def _ends_with_a_secret(before: str) -> bool:
    """Whether the last value, or the path without a value, is hidden in errors."""
    last = "any://" + re.split(r"[|?&]", before[before.rfind("@") + 1 :].rstrip("|?&"))[-1]
    return redact(last) != last


def misplaced_option(name: str, scheme: Scheme) -> AddressError:
    """The error for an option in the query of a message broker's address."""
    return AddressError(f"option '{name}' stands behind a '|': write {scheme.example}|{name}=value")

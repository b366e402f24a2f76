"""The sentence for a name that is neither an option nor a parameter of the scheme."""

from __future__ import annotations

from trunkline.address.golang import shown
from trunkline.address.nearest import nearest
from trunkline.address.options import OPTIONS
from trunkline.address.params import PARAMS, owners
from trunkline.address.schemes import Scheme
from trunkline.errors import AddressError

__all__ = ["misplaced_option", "unknown_option"]

# what a broker's users bring from other programs, and where it is written here
_ELSEWHERE = {
    ("mqtt", "keepalive"): "use the option pingInterval, in ms",
    ("amqp", "vhost"): "the virtual host is the path, as in amqp://host/vhost?queue=name",
    (
        "kafka",
        "bootstrap.servers",
    ): "the servers stand in the address, as in kafka://host1:9092,host2:9092/topic",
    (
        "kafka",
        "bootstrap_servers",
    ): "the servers stand in the address, as in kafka://host1:9092,host2:9092/topic",
}


def unknown_option(name: str, scheme: Scheme) -> AddressError:
    """The error for a name that is no option; says where it belongs, or names the nearest one."""
    elsewhere = _ELSEWHERE.get((scheme.protocol, name))
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
    # A name that is like none we know may be the rest of a password with a & in it.
    hint = "see `trunkline dial --help` for the options there are, and write & in a value as %26"
    return AddressError(f"the address has an unknown option: {hint}")


def misplaced_option(name: str, scheme: Scheme) -> AddressError:
    """The error for an option in the query of a message broker's address."""
    return AddressError(f"option '{name}' stands behind a '|': write {scheme.example}|{name}=value")

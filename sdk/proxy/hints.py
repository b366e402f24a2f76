"""Hints in the log at arguments that the caller has probably not meant. Each hint comes once per
process."""

from __future__ import annotations

import logging

from trunkline.address import OPTIONS, Address
from trunkline.address.values import read_value
from trunkline.errors import AddressError

__all__ = ["hint_at_options", "hint_at_seconds"]

log = logging.getLogger("trunkline")

SUSPICIOUS_S = 1000.0
"""From so many seconds on, a timeout is probably meant in milliseconds, the unit of `read` and of
many other libraries."""
_said: set[str] = set()


def hint_at_seconds(timeout: float) -> None:
    """Warn of a timeout of Dial that looks like milliseconds."""
    if timeout >= SUSPICIOUS_S:
        _say_once(
            "timeout",
            f"Dial's timeout counts in seconds: {timeout:g} is {timeout / 60:.0f} minutes; "
            f"for {timeout:g} ms write {timeout / 1000:g}",
        )


def hint_at_options(address: Address) -> None:
    """Warn of option names in the query of a WebSocket's URL: the query goes to the server."""
    if address.scheme not in ("ws", "wss"):
        return
    for name, value in address.params.items():
        if name not in address.options and _is_option(name, value, address.scheme):
            _say_once(
                f"option {name}",
                f"{address.display}: '{name}' in the URL's query goes to the server. If it is meant for "
                f"Trunkline, write it behind a '|': {address.scheme}://host/path|{name}=...",
            )


def _is_option(name: str, value: str, scheme: str) -> bool:
    """Whether a parameter has the name of an option, and a value that the option takes."""
    option = OPTIONS.get(name)
    if option is None or scheme not in option.schemes:
        return False
    try:
        read_value(option, value)
    except AddressError:
        return False
    return True


def _say_once(what: str, text: str) -> None:
    """Log a warning, once in this process for each `what`."""
    if what not in _said:
        _said.add(what)
        log.warning("%s", text)

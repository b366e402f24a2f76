"""Host names and ports of the plain URL schemes.

No error quotes text that may be a piece of a password.
"""

from __future__ import annotations

import ipaddress
import re

from trunkline.errors import AddressError

__all__ = ["clean_host", "join_host_port", "split_port", "without_zone"]

_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_PLACE = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([^:]*))?", re.DOTALL)


def split_port(place: str, whose: str) -> tuple[str, int | None]:
    """Split `host`, `host:port`, `[v6]` or `[v6]:port` into host and port.

    The host keeps its brackets. The port is None if absent.
    """
    match = _PLACE.fullmatch(place)
    if match is None:
        raise AddressError(
            f"{whose} has a malformed host: write host:port, an IPv6 address in brackets, "
            "and special characters in a password percent-encoded"
        )
    port = None if not match[2] else _port(match[2], whose)
    return match[1], port


def _port(digits: str, whose: str) -> int:
    """The port's number, 1 to 65535; AddressError for other text, which may be a password."""
    if not re.fullmatch("[0-9]{1,9}", digits):
        raise AddressError(
            f"{whose} has a port that is not a number: write host:port, "
            "and special characters in a password percent-encoded"
        )
    if not 1 <= int(digits) <= 65535:
        raise AddressError(f"{whose} has port {int(digits)}: a port is 1 to 65535")
    return int(digits)


def clean_host(host: str, whose: str) -> str:
    """The host as it is looked up: an IPv6 address without brackets, a name in ASCII (IDNA); raises
    AddressError."""
    if not host:
        raise AddressError(f"{whose} names no host: write one after the '://'")
    if host.startswith("["):
        return _ipv6(host[1:-1], whose)
    name = host if host.isascii() else _idna(host, whose)
    labels = name.removesuffix(".").split(".")
    if len(name) > 253 or not all(_NAME.fullmatch(label) for label in labels):
        raise AddressError(f"{whose} has a malformed host name: letters, digits, '-' and '.' only")
    return name


def _ipv6(text: str, whose: str) -> str:
    """An IPv6 address with its zone as the system writes it; AddressError for other text."""
    address = text.replace("%25", "%", 1)
    try:
        ipaddress.IPv6Address(address)
        return address
    except ValueError:
        pass
    raise AddressError(f"{whose} has a malformed IPv6 address in its brackets")


def _idna(host: str, whose: str) -> str:
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        pass
    raise AddressError(f"{whose} has a host name that cannot be written in ASCII (IDNA)")


def join_host_port(host: str, port: int | None) -> str:
    """`host:port` as in a URL."""
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def without_zone(host: str) -> str:
    """An IPv6 address without its zone, which has a meaning only on this machine; any other host
    unchanged."""
    return host.partition("%")[0] if ":" in host else host

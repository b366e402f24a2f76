"""The targets of sockets, of WebSocket and of foreign schemes: `host:port`, a path, or a URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, unquote_to_bytes

from trunkline.address.host import clean_host, join_host_port, split_port
from trunkline.address.model import Address
from trunkline.address.schemes import Scheme
from trunkline.errors import AddressError

__all__ = [
    "Parts",
    "parse_other",
    "parse_socket",
    "parse_websocket",
    "split_authority",
    "split_url",
    "split_userinfo",
]

# Characters that stay as written in a URL's path and query; the others are percent-encoded for the
# request line.
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True, repr=False)
class Parts:
    """The pieces of a URL: user and password decoded, the others as written."""

    user: str | None
    password: str | None
    place: str
    path: str
    query: str


def split_url(rest: str, whose: str) -> Parts:
    """Split the text after `scheme://`.

    The user info ends at the last `@` before the first `/` or `?`.
    """
    authority, path, query = split_authority(rest)
    return Parts(*split_userinfo(authority, whose), path, query)


def split_authority(rest: str) -> tuple[str, str, str]:
    """Split the text after `scheme://` into user info and host, path, and query."""
    match = re.match(r"([^/?#]*)([^?]*)\??(.*)", rest, re.DOTALL)
    assert match is not None
    return match[1], match[2], match[3]


def split_userinfo(authority: str, whose: str) -> tuple[str | None, str | None, str]:
    """User and password, decoded, and the place after the last `@`."""
    userinfo, at, place = authority.rpartition("@")
    user, colon, password = userinfo.partition(":")
    return (
        _decoded(user, whose) if at and user else None,
        _decoded(password, whose) if colon else None,
        place,
    )


def _decoded(text: str, whose: str) -> str:
    """Percent-decode a user or password; AddressError if the result is no UTF-8."""
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        pass
    raise AddressError(f"{whose} has a user or password whose percent-escapes are not UTF-8 text")


def parse_socket(scheme: Scheme, rest: str) -> Address:
    """Parse an address of `tcp`, `udp`, `tls` or `unix`; raises AddressError."""
    whose = scheme.whose
    if scheme.net == "unix":
        if not rest or "\0" in rest:
            raise AddressError(f"{whose} needs the path of a socket, such as {scheme.example}")
        return Address(scheme.name, f"{scheme.name}://{rest}", net="unix", path=rest)
    parts = split_url(rest, whose)
    if parts.user is not None or parts.password is not None:
        raise AddressError(f"{whose} takes no user and password: write {scheme.example}")
    if parts.path not in ("", "/") or parts.query:
        raise AddressError(
            f"{whose} has nothing behind the port: write {scheme.example} and options after a '|'"
        )
    host, port = split_port(parts.place, whose)
    host = clean_host(host, whose)
    if port is None:
        raise AddressError(f"{whose} needs a port: write {scheme.example}")
    return Address(
        scheme.name, f"{scheme.name}://{join_host_port(host, port)}", scheme.net, host, port
    )


def parse_websocket(scheme: Scheme, rest: str) -> Address:
    """Parse an address of `ws` or `wss`; raises AddressError.

    The target is the URL to request, in ASCII and without user info. The driver sends the user info
    as a header.
    """
    whose = scheme.whose
    if "#" in rest:
        raise AddressError(f"{whose} has no '#' part: write %23 for a '#' that belongs to it")
    parts = split_url(rest, whose)
    host, port = split_port(parts.place, whose)
    host = clean_host(host, whose)
    query = f"?{parts.query}" if "?" in rest else ""
    request = quote(parts.path + query, safe=_PRINTABLE)
    return Address(
        scheme.name,
        f"{scheme.name}://{join_host_port(host, port)}{request}",
        "tcp",
        host,
        port or scheme.port,
        parts.user,
        parts.password,
        path=parts.path,
        params=dict(parse_qsl(parts.query, keep_blank_values=True)),
    )


def parse_other(scheme: Scheme, rest: str) -> Address:
    """Parse an address of a scheme whose driver another distribution brings; raises AddressError.

    Such an address is a URL; with a path, it needs no host. The target is the address as written,
    including secrets. The query is only percent-decoded: a `+` stays.
    """
    whose = scheme.whose
    if "#" in rest:
        raise AddressError(f"{whose} has no '#' part: write %23 for a '#' that belongs to it")
    parts = split_url(rest, whose)
    host, port = split_port(parts.place, whose)
    hostless = not host and port is None and bool(parts.path)
    pairs = (pair.partition("=") for pair in parts.query.split("&") if pair)
    return Address(
        scheme.name,
        f"{scheme.name}://{rest}",
        host=None if hostless else clean_host(host, whose),
        port=port,
        user=parts.user,
        password=parts.password,
        path=parts.path,
        params={unquote(name): unquote(value) for name, _, value in pairs},
    )

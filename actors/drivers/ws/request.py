"""The WebSocket opening handshake as decisions: what to ask, and what an answer means. No I/O."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote, urljoin, urlsplit

from trunkline.actors.driver import FatalError
from trunkline.actors.net.peer_words import own_secrets
from trunkline.address import Address
from trunkline.address.host import clean_host, without_zone
from trunkline.errors import DialError

__all__ = ["Redirect", "Target", "check_subprotocol", "redirected", "refusal", "target_of"]

_PORTS = {"ws": 80, "wss": 443}
_HARMLESS = ("user-agent", "origin", "accept-language")
"""Headers that another host may get, too. Exchanges use headers of any name for their keys."""
_OURS = (
    "connection",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-version",
    "upgrade",
)
_VISIBLE = "!\"$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_RETRY_LATER = (408, 425, 429)
_ADVICE = {
    400: "check the path, the query and subprotocols",
    401: "check the user and password, or the headers with the token",
    403: "check the key or token, and whether this address is allowed",
    404: "check the path",
    405: "check the path: no WebSocket there",
    407: "check the proxy's user and password",
    426: "the server wants another protocol version",
}


class Redirect(Exception):
    """The server sends the client elsewhere; `location` is its Location header."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.location = location


@dataclass(frozen=True)
class Target:
    """One request: its destination and its headers.

    `repr` leaves out the headers, which may hold secrets.
    """

    scheme: str
    host: str
    port: int
    resource: str
    headers: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    """Names of the user's headers that belong to the handshake itself."""
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    """Texts that are hidden where the server repeats them."""
    certfile: bool = False
    """Whether the client has a certificate."""

    def __repr__(self) -> str:
        return f"Target({self.url})"

    @property
    def secure(self) -> bool:
        return self.scheme == "wss"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{_bracketed(self.host)}:{self.port}{self.resource}"

    @property
    def peer(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def host_header(self) -> str:
        """The user's own `Host` header, otherwise the host, with its port unless that is the
        scheme's default.
        """
        for name, value in self.headers:
            if name.lower() == "host":
                return value
        # The zone of an IPv6 address has a meaning on this machine only (RFC 6874, 4).
        host = _bracketed(without_zone(self.host))
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def extra_headers(self) -> list[tuple[str, str]]:
        """All headers but `Host`."""
        return [(name, value) for name, value in self.headers if name.lower() != "host"]

    @property
    def subprotocols(self) -> list[str]:
        offers = [value for name, value in self.headers if name.lower() == "sec-websocket-protocol"]
        return [name.strip() for name in ",".join(offers).split(",") if name.strip()]


def target_of(address: Address) -> Target:
    """Return the first request for `address`, with all its handshake options applied."""
    given = list(_header_items(address.option("headers")))
    ignored = tuple(name for name, _ in given if name.lower() in _OURS)
    headers = [item for item in given if item[0].lower() not in _OURS]
    names = {name.lower() for name, _ in headers}
    if (origin := address.option("origin")) and "origin" not in names:
        headers.append(("Origin", str(origin)))
    if (offers := address.option("subprotocols")) and "sec-websocket-protocol" not in names:
        headers.append(("Sec-WebSocket-Protocol", ", ".join(offers)))
    if address.user is not None and "authorization" not in names:
        token = base64.b64encode(f"{address.user}:{address.password or ''}".encode()).decode()
        headers.append(("Authorization", f"Basic {token}"))
    _check(headers)
    port = address.port or _PORTS[address.scheme]
    resource, secrets = _resource(address), frozenset(own_secrets(address))
    return Target(
        address.scheme,
        address.host or "",
        port,
        resource,
        tuple(headers),
        ignored,
        secrets,
        certfile=bool(address.option("certfile")),
    )


def redirected(target: Target, location: str) -> Target:
    """Return the target of a redirect. Another host gets no secrets, and wss never becomes ws."""
    scheme, host, port, resource = _destination(target, location)
    if target.secure and scheme == "ws":
        raise FatalError(
            f"{target.peer} redirects from wss to ws; give the new address if that is wanted"
        )
    headers = target.headers
    if (host, port) != (target.host, target.port):
        headers = tuple(item for item in headers if item[0].lower() in _HARMLESS)
    return replace(target, scheme=scheme, host=host, port=port, resource=resource, headers=headers)


def _destination(target: Target, location: str) -> tuple[str, str, int, str]:
    """Return scheme, host, port and resource of a `Location`.

    FatalError where it is no WebSocket address.
    """
    try:
        given = urlsplit(location)
        if not given.netloc and (given.scheme or location.startswith("//")):
            raise ValueError("no host")
        url = urlsplit(urljoin(target.url.replace("ws", "http", 1), location))
        scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}[url.scheme]
        host = clean_host(_bracketed(url.hostname or ""), "the new address")
        port = _PORTS[scheme] if url.port is None else url.port
        if not port:
            raise ValueError("no port")
    except (ValueError, KeyError):  # AddressError is a ValueError
        raise FatalError(
            f"{target.peer} redirects to something that is no WebSocket address"
        ) from None
    resource = _encoded(url.path or "/") + (f"?{_encoded(url.query)}" if url.query else "")
    return scheme, host, port, resource


def refusal(status: int, peer: str, words: str = "") -> DialError:
    """Return the error for an HTTP status that is no upgrade; FatalError where waiting cannot help.

    `words`: the server's own words, free of secrets.
    """
    says = f"; it says: {words}" if words else ""
    if status in _RETRY_LATER or status >= 500:
        text = f"{peer} refused the WebSocket with HTTP {status}; it may accept later{says}"
        return DialError(text, code=status)
    if 400 <= status < 500:
        advice = _ADVICE.get(status, "check the address and the headers")
        text = f"{peer} refused the WebSocket with HTTP {status}; {advice}{says}"
        return FatalError(text, code=status)
    return DialError(
        f"{peer} did not answer as a WebSocket server (HTTP {status}){says}", code=status
    )


def check_subprotocol(target: Target, chosen: str | None) -> None:
    """Raise FatalError where the server chose a subprotocol that was not offered.

    It may choose none.
    """
    if chosen and chosen not in target.subprotocols:
        raise FatalError(f"{target.peer} chose the subprotocol {chosen!r}, which was not offered")


def _resource(address: Address) -> str:
    """Return path and query as they were written.

    Only letters that HTTP cannot carry are percent-encoded.
    """
    url = address.target.partition("://")[2]
    start = re.search(r"[/?]", url)
    text = _encoded(url[start.start() :]) if start else ""
    return text if text.startswith("/") else f"/{text}"


def _encoded(text: str) -> str:
    return quote(text, safe=_VISIBLE)


def _header_items(
    headers: Mapping[str, object] | Iterable[tuple[str, object]] | None,
) -> Iterable[tuple[str, str]]:
    """Return the headers of the option as pairs of text."""
    if not headers:
        return []
    items = headers.items() if isinstance(headers, Mapping) else headers
    return [(str(name), str(value)) for name, value in items]


def _check(headers: Iterable[tuple[str, str]]) -> None:
    """Raise FatalError for an impossible header: with a line break, an option could add headers of
    its own.
    """
    for name, value in headers:
        if not name.isascii() or not name.isprintable() or set(name) & set(' :"') or not name:
            raise FatalError(f"headers: {name!r} cannot be a header's name")
        if set(value) & set("\r\n\0"):
            raise FatalError(f"headers: the value of {name} holds a line break")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host

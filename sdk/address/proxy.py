"""A proxy's address: `socks5://name:password@host:port`, and similar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from trunkline.address.host import clean_host, split_port
from trunkline.errors import AddressError

__all__ = ["Proxy"]

_PORTS = {
    "socks5": 1080,
    "socks5h": 1080,
    "socks4": 1080,
    "socks4a": 1080,
    "http": 80,
    "https": 443,
}


@dataclass(frozen=True, slots=True, repr=False)
class Proxy:
    """A proxy on the way to the peer.

    The proxy resolves host names, for `socks5` and `socks5h` alike. Only `socks4` needs an address,
    which Trunkline looks up. `str` and `repr` hide the password; `url` holds the password.
    """

    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str | None = None
    variable: str = ""
    """The environment variable that named the proxy; empty if the address did."""

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """The proxy that `text` names, with user and password percent-decoded; raises
        `AddressError`."""
        match = re.match(r"([A-Za-z0-9]+)://", text)
        if match is None or match[1].lower() not in _PORTS:
            raise AddressError(
                "option 'proxy' must start with socks5://, socks5h://, socks4://, socks4a://, http:// or "
                "https:// and name a host"
            )
        scheme = match[1].lower()
        userinfo, at, place = text[match.end() :].rstrip("/").rpartition("@")
        user, colon, password = userinfo.partition(":")
        host, port = split_port(place, "option 'proxy'")
        if password and scheme in ("socks4", "socks4a"):
            raise AddressError(
                f"option 'proxy' names a {scheme} proxy, which knows no password: use socks5://"
            )
        return cls(
            scheme,
            clean_host(host, "option 'proxy'"),
            port or _PORTS[scheme],
            unquote(user) if at else None,
            unquote(password) if colon else None,
        )

    @property
    def url(self) -> str:
        """The whole address, including the password, for libraries that need a single text."""
        account = "" if self.user is None else quote(self.user, safe="")
        if self.password is not None:
            account += f":{quote(self.password, safe='')}"
        return f"{self.scheme}://{account + '@' if account else ''}{self._place}"

    def to_wire(self) -> list[str]:
        """Plain data for msgpack, including the password."""
        return [self.url, self.variable]

    @classmethod
    def from_wire(cls, wire: Sequence[str]) -> Proxy:
        """The proxy that `to_wire` described."""
        url, variable = wire
        return replace(cls.parse(url), variable=variable)

    @property
    def place(self) -> str:
        """Host and port for an error's text; for a proxy from the environment, also the
        variable."""
        return f"{self._place} (from {self.variable})" if self.variable else self._place

    @property
    def _place(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        account = "" if self.user is None else "***@"
        return f"{self.scheme}://{account}{self._place}"

    def __repr__(self) -> str:
        return f"<Proxy {self}>"

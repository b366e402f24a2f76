"""The client's half of SOCKS4 and SOCKS4a, over an already connected socket."""

from __future__ import annotations

import ipaddress
import socket

from trunkline.actors.driver import FatalError
from trunkline.actors.net.proxies import receive, send
from trunkline.errors import DialError

__all__ = ["socks4"]

_GRANTED, _WANTS_IDENT, _OTHER_USER = 90, 92, 93
_NAME_FOLLOWS = bytes((0, 0, 0, 1))
"""SOCKS4a: an invalid address, which says that the host name follows the user."""


async def socks4(
    sock: socket.socket, proxy: str, target: tuple[str, int], user: str | None, password: str | None
) -> None:
    """Ask the SOCKS4 proxy at the other end of `sock` to connect to `target`.

    `target`: an IPv4 address, or a host name for a proxy that knows SOCKS4a; and the port.
    `password` is ignored, because the protocol has none. Raises DialError or FatalError."""
    host, port = target
    account = (user or "").encode()
    if b"\0" in account:
        raise FatalError(f"proxy {proxy}: a SOCKS4 name holds no zero byte; check proxy=")
    await send(sock, b"\x04\x01" + port.to_bytes(2, "big") + _destination(host, account))
    reply, code, *_ = await receive(sock, 8, proxy)
    if reply != 0:
        raise DialError(f"proxy {proxy} does not speak SOCKS4; check proxy=")
    if code in (_WANTS_IDENT, _OTHER_USER):
        raise FatalError(f"proxy {proxy} refused the user; check proxy=", code=code)
    if code != _GRANTED:
        raise DialError(
            f"{host}:{port} is unreachable through proxy {proxy}: rejected or failed, it does not say why",
            code=code,
        )


def _destination(host: str, account: bytes) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("idna") if not host.isascii() else host.encode()
        return _NAME_FOLLOWS + account + b"\0" + name + b"\0"
    if address.version == 6:
        raise FatalError(f"{host} is an IPv6 address, and SOCKS4 knows none; use socks5://")
    return address.packed + account + b"\0"

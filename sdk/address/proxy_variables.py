"""The proxy that the environment names: `wss_proxy`, `https_proxy`, `no_proxy` and similar
variables.

The rules are those of `websockets`, and for `all_proxy` those of `httpx`: a program moved from
these libraries keeps its proxy. The program that dials reads the variables, because another program
may have started the broker.
"""

from __future__ import annotations

import os
from dataclasses import replace

from trunkline.address import Address, Proxy
from trunkline.address.schemes import scheme_row
from trunkline.errors import AddressError

__all__ = ["find_proxy", "with_proxy"]


def with_proxy(address: Address) -> Address:
    """`address` with the environment's proxy, if the scheme takes a proxy and the address has no
    `proxy=`.

    Raises `AddressError` when the variable's value is no proxy.
    """
    if "proxy" in address.options or not scheme_row(address.scheme).proxy_variables:
        return address
    proxy = find_proxy(address.scheme, address.host or "", address.port)
    if proxy is None:
        return address
    return replace(address, options={**address.options, "proxy": proxy})


def find_proxy(scheme: str, host: str = "", port: int | None = None) -> Proxy | None:
    """The proxy that the environment names for `scheme` (ws, wss, and mqtt over WebSocket), or
    None.

    `no_proxy` may except `host`. Raises `AddressError` for a value that is no proxy.
    """
    if not any(name.lower().endswith("_proxy") and value for name, value in os.environ.items()):
        return None
    # Imported late: the import takes 20 ms, and most environments name no proxy.
    from urllib.request import getproxies_environment, proxy_bypass

    proxies = getproxies_environment()
    places = (host, f"[{host}]:{port}") if ":" in host else (f"{host}:{port}",)
    if host and any(proxy_bypass(place) for place in places):
        return None
    name = next((name for name in scheme_row(scheme).proxy_variables if proxies.get(name)), None)
    return None if name is None else _parsed(_variable(name), proxies[name], socks=name == "socks")


def _variable(name: str) -> str:
    """The variable's name as spelt in the environment. The lower-case spelling wins."""
    lower = f"{name}_proxy"
    return (
        lower if os.environ.get(lower) else next(key for key in os.environ if key.lower() == lower)
    )


def _parsed(variable: str, value: str, *, socks: bool) -> Proxy:
    """The proxy in a variable's value; AddressError names the variable."""
    scheme, colon, rest = value.rpartition("://")
    if not colon or (socks and scheme.lower() == "http"):
        scheme = "socks5h" if socks else "http"
    try:
        return replace(Proxy.parse(f"{scheme}://{rest}"), variable=variable)
    except AddressError as error:
        why = str(error).removeprefix("option 'proxy' ")
        raise AddressError(
            f"the environment variable {variable} names the proxy of this address, and its value {why}: "
            "correct or unset it, or dial with proxy=none"
        ) from None

"""Which proxy the environment names: `wss_proxy`, `https_proxy`, `no_proxy` and their kin.

The rules are those of `websockets` and, for `all_proxy`, of `httpx`: a program from there keeps its
way out. They are read in the program that dials: the broker may have been started by another one.
"""

from __future__ import annotations

import os
from dataclasses import replace

from trunkline.address import Address, Proxy
from trunkline.address.schemes import scheme_row
from trunkline.errors import AddressError

__all__ = ["find_proxy", "with_proxy"]


def with_proxy(address: Address) -> Address:
    """`address` with the proxy of the environment, where it takes one and has no `proxy=` of its own; raises
    `AddressError` where the variable's value is no proxy."""
    if "proxy" in address.options or not scheme_row(address.scheme).proxy_variables:
        return address
    proxy = find_proxy(address.scheme, address.host or "", address.port)
    if proxy is None:
        return address
    return replace(address, options={**address.options, "proxy": proxy})


def find_proxy(scheme: str, host: str = "", port: int | None = None) -> Proxy | None:
    """The proxy that the environment names for `scheme` (ws, wss, and mqtt over them); None where it names
    none, or where `no_proxy` excepts `host`. Raises `AddressError` for a value that is no proxy."""
    if not any(name.lower().endswith("_proxy") and value for name, value in os.environ.items()):
        return None
    # Imported here: it costs 20 ms, and most environments name no proxy.
    from urllib.request import getproxies_environment, proxy_bypass

    proxies = getproxies_environment()
    places = (host, f"[{host}]:{port}") if ":" in host else (f"{host}:{port}",)
    if host and any(proxy_bypass(place) for place in places):
        return None
    name = next((name for name in scheme_row(scheme).proxy_variables if proxies.get(name)), None)
    return None if name is None else _parsed(_variable(name), proxies[name], socks=name == "socks")


def _variable(name: str) -> str:
    """The variable as it is spelt: the lower case one wins, as everywhere."""
    lower = f"{name}_proxy"
    return (
        lower if os.environ.get(lower) else next(key for key in os.environ if key.lower() == lower)
    )


def _parsed(variable: str, value: str, *, socks: bool) -> Proxy:
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

"""The keyword arguments of clickhouse-driver for a clickhouse:// address.

The address itself is never passed.

`PARAMETERS` tells the fate of every name that clickhouse-go knows.
Any other name is a setting of the server, which is sent with each statement.
"""

from __future__ import annotations

import random
import ssl
from dataclasses import dataclass
from typing import Any

from trunkline.actors.driver import FatalError
from trunkline.address import Address

__all__ = ["PARAMETERS", "READ_TIMEOUT_S", "Plan", "plan"]

READ_TIMEOUT_S = 300.0
"""The default of clickhouse-go.
Long enough, because a running statement shows its progress several times a second.
"""
CONNECT_TIMEOUT_S = 30.0
"""Seconds for a connection, if the address names no limit."""
PING_TIMEOUT_S = 5.0
"""Seconds for the answer to a ping."""
# TCP keepalive: seconds of silence before the first
# probe, seconds between probes, number of probes.
KEEPALIVE = (30, 10, 3)

MAPPED, NO_EFFECT, REFUSED = "mapped", "no effect", "refused"
PARAMETERS: dict[str, str] = {
    "username": MAPPED,
    "password": MAPPED,
    "database": MAPPED,
    "alt_hosts": MAPPED,
    "connection_open_strategy": MAPPED,
    "dial_timeout": MAPPED,
    "timeout": MAPPED,
    "read_timeout": MAPPED,
    "write_timeout": NO_EFFECT,
    "compress": MAPPED,
    "compress_level": NO_EFFECT,
    "max_compression_buffer": NO_EFFECT,
    "secure": MAPPED,
    "skip_verify": MAPPED,
    "insecure": MAPPED,
    "tls_server_name": MAPPED,
    "tls_config": REFUSED,
    "client_info_product": MAPPED,
    "block_size": MAPPED,
    "block_buffer_size": NO_EFFECT,
    "max_open_conns": NO_EFFECT,
    "max_idle_conns": NO_EFFECT,
    "conn_max_lifetime": NO_EFFECT,
    "pool_size": NO_EFFECT,
    "no_delay": NO_EFFECT,
    "check_connection_liveness": NO_EFFECT,
    "debug": NO_EFFECT,
    "http_proxy": REFUSED,
    "http_path": REFUSED,
}


@dataclass(frozen=True)
class Plan:
    """How to reach the server."""

    hosts: tuple[tuple[str, int], ...]
    """The servers, in the order in which they are tried."""
    arguments: dict[str, Any]
    """Arguments for `clickhouse_driver.Client`, except host, port, timeouts and settings."""
    settings: dict[str, Any]
    """Settings of the server, from the address."""
    client_settings: dict[str, Any]
    """Settings of clickhouse-driver itself, which the library takes among the server's settings."""
    connect_s: float
    """Seconds for each step of a connection."""
    read_s: float
    """Seconds that a read may wait for data."""


def plan(address: Address) -> Plan:
    """The plan of an address. FatalError for an address that this driver cannot carry out."""
    typed = address.extra["typed"]
    if address.extra["protocol"] == "http":
        raise FatalError(
            "clickhouse:// speaks ClickHouse's native protocol, not HTTP: write the native port"
            " (9000, with secure=true 9440) and no http:// or https://"
        )
    for name, fate in PARAMETERS.items():
        if fate == REFUSED and name in address.params:
            raise FatalError(
                f"{name} has no meaning with ClickHouse's native protocol; leave it out"
            )
    return Plan(
        hosts=_hosts(address, typed),
        arguments=_arguments(address, typed),
        settings=dict(address.extra.get("settings", {})),
        client_settings={"insert_block_size": typed["block_size"]}
        if typed.get("block_size")
        else {},
        connect_s=typed.get("dial_timeout_seconds")
        or typed.get("timeout_seconds")
        or CONNECT_TIMEOUT_S,
        read_s=typed.get("read_timeout_seconds") or READ_TIMEOUT_S,
    )


def _hosts(address: Address, typed: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    """The servers, in the order in which they are tried."""
    default = 9440 if typed.get("secure") else 9000
    given = address.hosts or ((address.host or "localhost", address.port),)
    hosts = [(host, port or default) for host, port in given]
    strategy = typed.get("connection_open_strategy", "in_order")
    if strategy in ("random", "time_random"):
        random.shuffle(hosts)
    elif strategy == "round_robin":
        # Each link is one dial, so its place in a circle is chosen by chance.
        first = random.randrange(len(hosts))
        hosts = hosts[first:] + hosts[:first]
    return tuple(hosts)


def _arguments(address: Address, typed: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `clickhouse_driver.Client` for an address."""
    arguments: dict[str, Any] = {
        "user": address.user or "default",
        "password": address.password or "",
        "database": address.database or "",
        "client_name": _client_name(typed),
        "compression": _compression(typed.get("compress", "none")),
        "sync_request_timeout": PING_TIMEOUT_S,
        "tcp_keepalive": KEEPALIVE,
        # A link that is found dead is opened again by `Link`.
        "disable_reconnect": True,
        # The server refuses a setting that it does not know, as it does for clickhouse-go.
        "settings_is_important": True,
    }
    if typed.get("secure"):
        # The default of Python. The library would use the list of certifi if that is installed.
        authorities = ssl.get_default_verify_paths().cafile
        arguments |= {"secure": True, "verify": not typed.get("skip_verify")}
        arguments |= {"ca_certs": authorities} if authorities else {}
        arguments |= (
            {"server_hostname": typed["tls_server_name"]} if "tls_server_name" in typed else {}
        )
    return arguments | _tls_options(address, secure=bool(typed.get("secure")))


def _tls_options(address: Address, secure: bool) -> dict[str, Any]:
    """The TLS options of `Dial` that the address carries."""
    given = {name for name in _TLS_OPTIONS if name in address.options}
    if given and not secure:
        raise FatalError(f"{sorted(given)[0]} needs TLS: write secure=true into the address")
    found = {_TLS_OPTIONS[name]: address.options[name] for name in given}
    if "verify" in found:
        found["verify"] = not found["verify"]
    return found


_TLS_OPTIONS = {
    "cafile": "ca_certs",
    "certfile": "certfile",
    "keyfile": "keyfile",
    "servername": "server_hostname",
    "insecureSkipVerify": "verify",
}


def _client_name(typed: dict[str, Any]) -> str:
    products = typed.get("client_info_product", [])
    return " ".join(["trunkline", *("/".join(pair) for pair in products)])


def _compression(method: str) -> str | bool:
    """The compression method; False for none. FatalError for a method that only HTTP has."""
    if method in ("gzip", "deflate", "br"):
        raise FatalError(
            f"compress={method} exists over HTTP only; with the native protocol write lz4, lz4hc or zstd"
        )
    return False if method == "none" else method

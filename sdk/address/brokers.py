"""The targets of the message brokers: mqtt, nats, amqp, kafka.

Ordinary URLs, but for the query: it is percent-decoded only (`+` and `#` are wildcards in a topic), and its
names are a broker's own, so that a misspelt one is an error. `extra` gets `topic` (mqtt, nats, kafka),
`queue` and `vhost` (amqp), `token` (nats), `librdkafka` (kafka), and `typed` with the numbers and booleans.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from trunkline.address.golang import shown
from trunkline.address.host import clean_host, join_host_port, split_port
from trunkline.address.model import Address
from trunkline.address.plain import Parts, split_url
from trunkline.address.schemes import Scheme, is_param
from trunkline.address.separator import unknown_option
from trunkline.errors import AddressError

__all__ = ["parse_broker", "with_params"]

_BOOLS = frozenset(("retain", "clean", "exclusive"))
_COUNTS = {"qos": 2, "prefetch": 65_535, "heartbeat": 65_535, "partition": 2**31 - 1}
_NEEDS = {
    "mqtt": ("topic", "write_topic"),
    "nats": ("topic", "stream"),
    "amqp": ("queue", "exchange"),
    "kafka": ("topic",),
}


def parse_broker(scheme: Scheme, rest: str) -> Address:
    """The target alone; `with_params` adds the parameters among the options and completes it."""
    whose = f"a {scheme.name} address"
    parts = split_url(rest, whose)
    places = parts.place.split(",")
    if len(places) > 1 and _kind(scheme) not in ("kafka", "nats"):
        raise AddressError(f"{whose} names one host: write {scheme.example}")
    hosts = tuple(_host(place, whose, scheme) for place in places)
    params = _query(parts.query, scheme)
    _read_path(scheme, parts, params)
    place = ",".join(join_host_port(*pair) for pair in hosts)
    return Address(
        scheme.name,
        f"{scheme.name}://{place}{parts.path}",
        "tcp",
        *hosts[0],
        parts.user,
        parts.password,
        path=parts.path,
        params=params,
        hosts=hosts if len(hosts) > 1 else (),
    )


def _kind(scheme: Scheme) -> str:
    return {"mqtts": "mqtt", "tls+nats": "nats", "amqps": "amqp"}.get(scheme.name, scheme.name)


def _host(place: str, whose: str, scheme: Scheme) -> tuple[str, int | None]:
    host, port = split_port(place, whose)
    return clean_host(host, whose), port or scheme.port


def _query(query: str, scheme: Scheme) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        if not is_param(scheme, name):
            raise unknown_option(name, scheme)
        found[name] = unquote(value)
    return found


def _read_path(scheme: Scheme, parts: Parts, params: dict[str, str]) -> None:
    """Kafka's path is the topic; amqp's the virtual host; the others have none."""
    kind, path = _kind(scheme), unquote(parts.path[1:])
    if kind == "kafka" and path:
        if params.setdefault("topic", path) != path:
            raise AddressError("a kafka address names its topic twice: write it in the path alone")
    elif kind != "amqp" and path:
        raise AddressError(f"a {scheme.name} address has no path: write {scheme.example}")


def with_params(scheme: Scheme, address: Address, given: Mapping[str, str]) -> Address:
    """The address with the parameters that stood among the options (those of the address itself win),
    checked and complete."""
    params = {**given, **address.params}
    kind = _kind(scheme)
    if not any(params.get(name) for name in _NEEDS[kind]):
        needed = " or ".join(f"'{name}'" for name in _NEEDS[kind])
        raise AddressError(f"a {scheme.name} address needs {needed}: write {scheme.example}")
    extra: dict[str, Any] = {"typed": _typed(params, kind)}
    _EXTRA[kind](address, params, extra)
    user = address.user if address.user is not None else params.get("username")
    password = address.password if address.password is not None else params.get("password")
    return replace(address, params=params, extra=extra, user=user, password=password)


def _typed(params: Mapping[str, str], kind: str) -> dict[str, Any]:
    typed: dict[str, Any] = {}
    for name, value in params.items():
        if name in _BOOLS or (name == "durable" and kind == "amqp"):
            typed[name] = _bool(name, value)
        elif name in _COUNTS:
            typed[name] = _count(name, value)
    return typed


def _bool(name: str, value: str) -> bool:
    lower = value.lower()
    if lower not in ("true", "1", "yes", "false", "0", "no"):
        raise AddressError(f"parameter '{name}' does not take '{shown(value)}': use true or false")
    return lower in ("true", "1", "yes")


def _count(name: str, value: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", value) or int(value) > _COUNTS[name]:
        raise AddressError(
            f"parameter '{name}' does not take '{shown(value)}': use a whole number from 0 to {_COUNTS[name]}"
        )
    return int(value)


def _mqtt(address: Address, params: Mapping[str, str], extra: dict[str, Any]) -> None:
    extra["topic"] = params.get("topic")


def _nats(address: Address, params: Mapping[str, str], extra: dict[str, Any]) -> None:
    extra["topic"] = params.get("topic")
    if "token" in params:
        extra["token"] = params["token"]
    elif address.user is not None and address.password is None:
        # a user without a password is a token, by the convention of the NATS clients
        extra["token"] = address.user


def _amqp(address: Address, params: Mapping[str, str], extra: dict[str, Any]) -> None:
    extra["vhost"] = unquote(address.path[1:]) or "/"
    extra["queue"] = params.get("queue")


def _kafka(address: Address, params: Mapping[str, str], extra: dict[str, Any]) -> None:
    extra["topic"] = params.get("topic")
    extra["librdkafka"] = {
        name.replace("_", "."): value for name, value in params.items() if "." in name or "_" in name
    }


_EXTRA: dict[str, Callable[[Address, Mapping[str, str], dict[str, Any]], None]] = {
    "mqtt": _mqtt,
    "nats": _nats,
    "amqp": _amqp,
    "kafka": _kafka,
}

"""`parse_address`: the text that `Dial` is given, and the options beside it, as an `Address`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trunkline.address.brokers import parse_broker, with_params
from trunkline.address.databases import parse_database
from trunkline.address.model import Address
from trunkline.address.options import OPTIONS
from trunkline.address.plain import parse_other, parse_socket, parse_websocket
from trunkline.address.schemes import Scheme, find_scheme, is_param
from trunkline.address.separator import read_options, split_target, unknown_option
from trunkline.address.values import read_value
from trunkline.errors import AddressError

__all__ = ["parse_address"]

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*)://")


def parse_address(
    text: str,
    options: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> Address:
    """The address that `text` names, with the options in it and those of the mapping, which yield to them.

    `environ` is where postgres looks for its PG... variables: the process's own when None. Raises
    `AddressError` (`UnknownScheme` for the scheme) with one sentence that says what to do and holds no
    secret; nothing hangs on the error that does. `TypeError` when `text` is not text.
    """
    if not isinstance(text, str):
        raise TypeError(f"an address is text, not {type(text).__name__}")
    try:
        return _parse(text, options or {}, os.environ if environ is None else environ)
    except AddressError as error:
        failure = type(error)(str(error))
    # raised anew, outside the handler: no context and no frames that hold the address
    raise failure


def _parse(text: str, options: Mapping[str, object], environ: Mapping[str, str]) -> Address:
    match = _SCHEME.match(text)
    if match is None:
        raise AddressError(
            "an address starts with its scheme: write wss://host/path, tcp://host:port and so on"
        )
    scheme = find_scheme(match[1])
    if re.search("[\ud800-\udfff]", text):
        raise AddressError(f"a {scheme.name} address must be valid text: it holds half of a surrogate pair")
    target, tail = split_target(text[match.end() :], scheme)
    written = read_options(tail, scheme)
    address = _target(scheme, target, environ)
    found, params = _options(scheme, written, options)
    address = replace(address, options=found)
    return with_params(scheme, address, params) if scheme.family == "broker" else address


def _target(scheme: Scheme, target: str, environ: Mapping[str, str]) -> Address:
    if scheme.family == "database":
        return parse_database(scheme, target, environ)
    target = target.strip()
    if re.search(r"[\x00-\x1f\x7f]", target):
        raise AddressError(f"a {scheme.name} address must be one line without control characters")
    if scheme.family == "socket":
        return parse_socket(scheme, target)
    if scheme.family == "other":
        return parse_other(scheme, target)
    return parse_websocket(scheme, target) if scheme.family == "websocket" else parse_broker(scheme, target)


def _options(
    scheme: Scheme, written: list[tuple[str, str]], beside: Mapping[str, object]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The options typed, and a broker's parameters as text; what is written in the address wins."""
    found: dict[str, Any] = {}
    params: dict[str, str] = {}
    for name, value in beside.items():
        if value is not None:
            _take(scheme, name, value, found, params)
    seen: set[str] = set()
    for name, text in written:
        if name == "payload" and name in seen:
            found[name] += read_value(OPTIONS[name], text)
            continue
        if name in seen:
            raise AddressError(f"option '{name}' is given twice: write it once")
        seen.add(name)
        _take(scheme, name, text, found, params)
    return found, params


def _take(scheme: Scheme, name: object, value: object, found: dict[str, Any], params: dict[str, str]) -> None:
    option = OPTIONS.get(name) if isinstance(name, str) else None
    if isinstance(name, str) and option is None and is_param(scheme, name):
        params[name] = str(value).lower() if isinstance(value, bool) else str(value)
        return
    if option is None:
        raise unknown_option(str(name), scheme)
    # what a driver of somebody else's makes of an option is not known here: it is given all of them
    if scheme.name not in option.schemes and scheme.family != "other":
        raise AddressError(f"option '{name}' makes no sense for {scheme.name}: leave it out")
    found[option.name] = read_value(option, value)

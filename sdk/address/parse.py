"""`parse_address`: from the text and the options given to `Dial`, an `Address`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trunkline.address.brokers import parse_broker
from trunkline.address.databases import parse_database
from trunkline.address.model import Address
from trunkline.address.options import OPTIONS, PROXIED_PLAIN
from trunkline.address.params import is_param
from trunkline.address.plain import parse_other, parse_socket, parse_websocket
from trunkline.address.schemes import Scheme, find_scheme
from trunkline.address.separator import read_options, split_target
from trunkline.address.unknown import unknown_option
from trunkline.address.values import read_value
from trunkline.errors import AddressError
from trunkline.frames import without_frames

__all__ = ["parse_address"]

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*)://")


def parse_address(
    text: str,
    options: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> Address:
    """Parse `text` and `options` into an `Address`. Options written in `text` win over `options`.

    `environ`: the environment with the PG... variables of postgres; None: the process's own. Raises
        `AddressError` (`UnknownScheme` for the scheme). The error's sentence says what to do and
        holds no secret; its traceback and context hold none either. `TypeError` when `text` is not
        str.
    """
    if not isinstance(text, str):
        raise TypeError(f"an address is text, not {type(text).__name__}")
    try:
        return _parse(text, options or {}, os.environ if environ is None else environ)
    except AddressError as error:
        failure: BaseException = type(error)(str(error))
    # For example Ctrl-C.
    except BaseException as error:
        failure = without_frames(error)
    # Raised anew outside the handler: without context, and without frames whose variables hold the
    # address.
    del text, options, environ
    raise failure


def _parse(text: str, options: Mapping[str, object], environ: Mapping[str, str]) -> Address:
    """Parse the address; the errors may still carry frames that hold the address."""
    match = _SCHEME.match(text)
    if match is None:
        raise AddressError(
            "an address starts with its scheme: write wss://host/path, tcp://host:port and so on"
        )
    scheme = find_scheme(match[1])
    if _has_half_a_pair(text):
        raise AddressError(f"{scheme.whose} must be valid text: it holds half of a surrogate pair")
    target, tail = split_target(text[match.end() :], scheme)
    written = read_options(tail, scheme, target)
    for name, value in options.items():
        if _has_half_a_pair(name) or _has_half_a_pair(value):
            raise AddressError(
                f"option '{ascii(name)[1:-1]}' must be valid text: it holds half of a surrogate pair"
            )
    given = _options(scheme, written, options)
    _check_keepalive(scheme, given.options)
    _check_trust(scheme, given.options)
    _check_ping_timeout(scheme, given.options)
    if scheme.family == "database":
        address = parse_database(scheme, target, environ)
    else:
        address = _url(scheme, target.strip(), given)
    return replace(address, options=given.options)


def _has_half_a_pair(value: object) -> bool:
    """Whether an option's value holds text that UTF-8 cannot encode."""
    if isinstance(value, Mapping):
        return any(_has_half_a_pair(part) for pair in value.items() for part in pair)
    if isinstance(value, (list, tuple)):
        return any(map(_has_half_a_pair, value))
    return isinstance(value, str) and re.search("[\ud800-\udfff]", value) is not None


def _url(scheme: Scheme, target: str, given: _Given) -> Address:
    """Parse the target of a scheme that is no database."""
    if re.search(r"[\x00-\x1f\x7f]", target):
        raise AddressError(f"{scheme.whose} must be one line without control characters")
    if scheme.family == "socket":
        return parse_socket(scheme, target)
    if scheme.family == "websocket":
        return parse_websocket(scheme, target)
    if scheme.family == "broker":
        return parse_broker(scheme, target, given.written, given.beside)
    return parse_other(scheme, target)


@dataclass(slots=True, repr=False)
class _Given:
    """The options (typed) and a message broker's parameters that were given beside the target."""

    options: dict[str, Any] = field(default_factory=dict)
    written: list[tuple[str, str]] = field(default_factory=list)
    """Parameters among the options of the address, as written."""
    beside: dict[str, object] = field(default_factory=dict)
    """Parameters given to `Dial` in Python."""


def _options(
    scheme: Scheme, written: list[tuple[str, str]], beside: Mapping[str, object]
) -> _Given:
    """Separate options from parameters. An option written in the address wins."""
    found = _Given()
    for name, value in beside.items():
        if value is not None and _is_param(scheme, name):
            found.beside[name] = value
        elif value is not None:
            _take(scheme, name, value, found.options)
    seen: set[str] = set()
    for name, text in written:
        if _is_param(scheme, name):
            found.written.append((name, text))
        elif name == "payload" and name in seen:
            found.options[name] += read_value(OPTIONS[name], text)
        elif name in seen:
            raise AddressError(f"option '{name}' is given twice: write it once")
        else:
            seen.add(name)
            _take(scheme, name, text, found.options)
    return found


def _is_param(scheme: Scheme, name: object) -> bool:
    """Whether `name` is a message broker's parameter and no option. Options go first."""
    return isinstance(name, str) and name not in OPTIONS and is_param(scheme, name)


def _take(scheme: Scheme, name: object, value: object, found: dict[str, Any]) -> None:
    """Check an option and put its typed value into `found`; raises AddressError."""
    option = OPTIONS.get(name) if isinstance(name, str) else None
    if option is None:
        raise unknown_option(str(name), scheme)
    # The driver of a foreign scheme may use any option, so every option is accepted.
    if scheme.name not in option.schemes and scheme.family != "other":
        raise AddressError(f"option '{name}' {_why_not(option.name, scheme)}: leave it out")
    found[option.name] = read_value(option, value)
    if option.kind == "headers" and scheme.family == "websocket":
        _check_single(option.name, found[option.name])


def _check_keepalive(scheme: Scheme, options: Mapping[str, Any]) -> None:
    """A plain socket has no ping of its own, so a keepalive needs a message."""
    silent = options.get("pingMessage") is None and options.get("pingType") != "text"
    if scheme.family == "socket" and options.get("pingInterval") and silent:
        raise AddressError(
            f"option 'pingInterval' needs a pingMessage beside it: {scheme.name} has no ping of its own"
        )


def _check_ping_timeout(scheme: Scheme, options: Mapping[str, Any]) -> None:
    """On these schemes a peer does not answer the protocol's own heartbeats."""
    given = options.get("pingTimeout") is not None
    if given and scheme.beat and options.get("pingType") != "text":
        raise AddressError(
            f"option 'pingTimeout' needs pingType=text beside it with {scheme.name}: its own pings have no "
            f"answer of their own; {scheme.beat} says how soon a silent broker is lost"
        )


def _check_trust(scheme: Scheme, options: Mapping[str, Any]) -> None:
    """A scheme without TLS checks a certificate only if its proxy presents one."""
    proxy = options.get("proxy")
    if scheme.name not in PROXIED_PLAIN or (proxy is not None and proxy.scheme == "https"):
        return
    for name in ("cafile", "insecureSkipVerify"):
        if name in options:
            raise AddressError(
                f"option '{name}' makes no sense for {scheme.name} without an https:// proxy: leave it out"
            )


def _check_single(name: str, headers: Mapping[str, object]) -> None:
    """Refuse several values for a header name."""
    if any(isinstance(value, list) for value in headers.values()):
        raise AddressError(
            f"option '{name}' takes one value for each name here: join them with a comma"
        )


def _why_not(name: str, scheme: Scheme) -> str:
    """Why the scheme refuses the option, as the rest of the error's sentence."""
    reason = dict(scheme.refusals).get(name)
    return (
        f"cannot be had with {scheme.name}{reason}"
        if reason
        else f"makes no sense for {scheme.name}"
    )

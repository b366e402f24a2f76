"""The rules of Go's standard library on which the drivers' DSNs rest.

`strconv` numbers and booleans, `time.ParseDuration`, and the escapes and authority of `net/url`.
Every function returns the value or raises `DsnError` with Go's own sentence. The only difference:
text that may be a piece of a password is never quoted.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

__all__ = [
    "Dsn",
    "DsnError",
    "GoUrl",
    "duration_seconds",
    "parse_bool",
    "parse_int",
    "parse_query",
    "parse_uint",
    "parse_url",
    "path_unescape",
    "query_unescape",
    "query_values",
    "shown",
    "split_host_port",
]

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_PIECE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([^0-9.]*)")
_MAX_SECONDS = 2**63 / 1e9
_SHOWN = re.compile(r"[\w.,:;+%&!$*~^?=/ -]{0,60}")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_USERINFO = re.compile(r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*")
_HOST = re.compile(r"""(?:[A-Za-z0-9\-_.~!$&'()*+,;=:\[\]<>"%]|[^\x00-\x7f])*""")


class DsnError(ValueError):
    """The Go driver's error for a DSN that it refuses. The text never quotes a secret."""


def shown(value: str) -> str:
    """`value` as an error may quote it. A value with an `@` may hold a password, and is hidden."""
    return value if _SHOWN.fullmatch(value) else "***"


def parse_bool(value: str) -> bool:
    """`strconv.ParseBool`."""
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise DsnError(f'strconv.ParseBool: parsing "{shown(value)}": invalid syntax')


def _number(value: str, pattern: str, low: int, high: int, function: str) -> int:
    """A decimal number from `low` to `high`; `function` is the name in Go's error."""
    if not re.fullmatch(pattern, value):
        raise DsnError(f'strconv.{function}: parsing "{shown(value)}": invalid syntax')
    # int() refuses thousands of digits with an error of its own, so the length is checked first.
    if len(value) > 40 or not low <= int(value) <= high:
        raise DsnError(f'strconv.{function}: parsing "{shown(value)}": value out of range')
    return int(value)


def parse_int(value: str, *, bits: int = 64, function: str = "ParseInt") -> int:
    """`strconv.ParseInt` in base 10 (or `Atoi`, by `function`)."""
    return _number(value, "[+-]?[0-9]+", -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, function)


def parse_uint(value: str, *, bits: int = 64) -> int:
    """`strconv.ParseUint` in base 10."""
    return _number(value, "[0-9]+", 0, 2**bits - 1, "ParseUint")


def duration_seconds(value: str) -> float:
    """`time.ParseDuration`, in seconds: `300ms`, `1m30s`. Only the number 0 needs no unit."""
    text = value[1:] if value[:1] in ("+", "-") else value
    if text == "0":
        return 0.0
    total, at = 0.0, 0
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None:
            break
        if not piece[2]:
            raise DsnError(f'time: missing unit in duration "{shown(value)}"')
        if piece[2] not in _UNITS:
            raise DsnError(f'time: unknown unit "{shown(piece[2])}" in duration "{shown(value)}"')
        total += float(piece[1]) * _UNITS[piece[2]]
        at = piece.end()
    if at < len(text) or not text or total >= _MAX_SECONDS:
        raise DsnError(f'time: invalid duration "{shown(value)}"')
    return round(-total if value[0] == "-" else total, 9)


def path_unescape(text: str) -> str:
    """`url.PathUnescape`.

    Go's strings are bytes, Python's are text: escapes that are not UTF-8 are refused.
    """
    bad = _ESCAPE.search(text)
    if bad is not None:
        raise DsnError(f'invalid URL escape "{shown(text[bad.start() : bad.start() + 3])}"')
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        pass
    raise DsnError("its percent-escapes are not UTF-8 text")


def query_unescape(text: str) -> str:
    """`url.QueryUnescape`: like `path_unescape`, and `+` is a space."""
    return path_unescape(text.replace("+", " "))


def parse_query(text: str, *, strict: bool) -> dict[str, str]:
    """`url.ParseQuery`; of duplicates, the first value counts.

    With `strict`, a bad pair raises DsnError, where Go returns an error beside the values. Without,
    a bad pair is dropped silently, as in `URL.Query()`.
    """
    found: dict[str, str] = {}
    for name, value in _query_pairs(text, strict=strict):
        found.setdefault(name, value)
    return found


def query_values(text: str, name: str) -> list[str]:
    """All values of a name, in order, including the duplicates that `parse_query` drops."""
    return [value for found, value in _query_pairs(text, strict=False) if found == name]


def _query_pairs(text: str, *, strict: bool) -> Iterator[tuple[str, str]]:
    """The decoded pairs of a query, in order. See `parse_query` for `strict`."""
    for pair in text.split("&"):
        name, _, value = pair.partition("=")
        try:
            if ";" in pair:
                raise DsnError("invalid semicolon separator in query")
            if pair:
                yield query_unescape(name), query_unescape(value)
        except DsnError:
            if strict:
                raise


@dataclass(frozen=True, slots=True)
class GoUrl:
    """The result of `url.Parse`.

    `user` is None without user info; `host` still includes the port.
    """

    scheme: str
    user: str | None
    password: str | None
    host: str
    path: str
    query: str

    def __repr__(self) -> str:
        return f"GoUrl({self.scheme!r}, host={self.host!r})"


def parse_url(text: str, *, several_ports: bool = False) -> GoUrl:
    """`url.Parse`. `several_ports` allows `h1:1,h2:2` in the host, as clickhouse-go's own copy of
    the parser does."""
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise DsnError("net/url: invalid control character in URL")
    text = text.partition("#")[0]
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", text)
    scheme, rest = (match[1].lower(), text[match.end() :]) if match else ("", text)
    rest, _, query = rest.partition("?")
    if not rest.startswith("//"):
        return GoUrl(scheme, None, None, "", rest, query)
    authority, slash, path = rest[2:].partition("/")
    userinfo, at, host = authority.rpartition("@")
    user, password = _userinfo(userinfo) if at else (None, None)
    for one in host.split(",") if several_ports else (host,):
        _check_port(one)
    return GoUrl(scheme, user, password, _unescape_host(host), path_unescape(slash + path), query)


def _userinfo(text: str) -> tuple[str, str | None]:
    """User and password, decoded; the password is None without a colon."""
    if not _USERINFO.fullmatch(text):
        raise DsnError("net/url: invalid userinfo")
    user, colon, password = text.partition(":")
    return path_unescape(user), path_unescape(password) if colon else None


def _check_port(host: str) -> None:
    """After the host, only `:digits` may follow.

    The error does not quote the text: it may be half a password.
    """
    if host.startswith("["):
        if "]" not in host:
            raise DsnError("missing ']' in host")
        after = host[host.rindex("]") + 1 :]
        _check_bracketed(host[1 : host.rindex("]")])
    else:
        after = host[host.rindex(":") :] if ":" in host else ""
    if not re.fullmatch(r"(?::[0-9]*)?", after):
        raise DsnError("invalid port after host")


def _check_bracketed(text: str) -> None:
    """Brackets must hold an IPv6 address, perhaps with a zone (RFC 3986, 3.2.2)."""
    try:
        ipaddress.IPv6Address(path_unescape(text))
        return
    except (ValueError, DsnError):
        pass
    raise DsnError("invalid IP-literal: only an IPv6 address stands in brackets")


def _unescape_host(host: str) -> str:
    """The host, decoded; DsnError for characters and escapes that Go refuses."""
    bad = _HOST.match(host)
    if bad is not None and bad.end() < len(host):
        raise DsnError(f'invalid character "{shown(host[bad.end()])}" in host name')
    # A host name may hold only two kinds of escapes: a zone's %25, and escapes of non-ASCII
    # letters.
    outside_zone = host.partition("%25")[0] if host.startswith("[") else host
    escape = re.search(r"%(?!25)[0-7][0-9A-Fa-f]", outside_zone)
    if escape is not None:
        raise DsnError(f'invalid URL escape "{escape[0]}"')
    return path_unescape(host)


def split_host_port(address: str) -> tuple[str, str] | None:
    """`net.SplitHostPort`; None where Go returns an error."""
    match = re.fullmatch(r"\[([^\[\]]*)\]:([^:\[\]]*)|([^:\[\]]*):([^:\[\]]*)", address)
    if match is None:
        return None
    return (match[1], match[2]) if match[1] is not None else (match[3], match[4])


@dataclass(slots=True)
class Dsn:
    """The result of a database's parser, field by field as in the Go driver.

    `user` is None only where Go falls back to the system's user. `fields` holds a driver's own
    fields, as plain data, and becomes `Address.extra`.
    """

    net: str | None
    host: str | None
    port: int | None
    user: str | None
    password: str
    database: str
    params: dict[str, str]
    fields: dict[str, Any]

    def __repr__(self) -> str:
        return f"Dsn(net={self.net!r}, host={self.host!r}, port={self.port!r})"

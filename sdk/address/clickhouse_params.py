"""The parameters of clickhouse-go's DSNs: a reader for each name, by the rules of v2 and of the
union."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trunkline.address.golang import (
    DsnError,
    duration_seconds,
    parse_bool,
    parse_int,
    parse_uint,
    shown,
)

__all__ = ["UNION", "V2", "seconds"]

_METHODS = frozenset(("none", "zstd", "lz4", "lz4hc", "gzip", "deflate", "br"))
_STRATEGIES = {
    "v2": ("in_order", "round_robin", "random"),
    "union": ("in_order", "round_robin", "random", "time_random"),
}


def seconds(value: str) -> float | None:
    """v1's bare number of seconds; None for other text."""
    digits = value.removeprefix("+").replace(".", "", 1)
    return float(value) if digits.isascii() and digits.isdigit() and len(digits) < 18 else None


_Reader = Callable[[str, str, dict[str, Any]], None]


def _duration(name: str, value: str, typed: dict[str, Any]) -> None:
    """A duration in Go's notation, stored in seconds."""
    try:
        typed[f"{name}_seconds"] = duration_seconds(value)
        return
    except DsnError as error:
        text = f"clickhouse [dsn parse]:{name.replace('_', ' ')}: {error}"
    raise DsnError(text)


def _seconds_or_duration(name: str, value: str, typed: dict[str, Any]) -> None:
    """v1's number of seconds or v2's duration, stored in seconds."""
    number = seconds(value)
    if number is None:
        _duration(name, value, typed)
    else:
        typed[f"{name}_seconds"] = number


def _bool(name: str, value: str, typed: dict[str, Any]) -> None:
    """A boolean. The bare name (`?secure`) is true.

    A misspelling is an error, so that no connection lacks TLS by accident.
    """
    try:
        typed[name] = value == "" or parse_bool(value)
        return
    except DsnError as error:
        text = f"clickhouse [dsn parse]:{name}: {error}"
    raise DsnError(text)


def _lenient_bool(name: str, value: str, typed: dict[str, Any]) -> None:
    """A boolean; any unknown word is false."""
    typed[name] = value in ("1", "t", "T", "TRUE", "true", "True")


def _whole(name: str, value: str, typed: dict[str, Any]) -> None:
    typed[name] = parse_int(value, function="Atoi")


def _block_buffer(name: str, value: str, typed: dict[str, Any]) -> None:
    """A number from 1 to 255."""
    typed[name] = parse_uint(value, bits=8)
    if not typed[name]:
        raise DsnError("block_buffer_size must be greater than 0")


def _compress(name: str, value: str, typed: dict[str, Any]) -> None:
    """A compression method, or a boolean for lz4; other words are ignored."""
    if value in _METHODS:
        typed[name], typed["compress_level"] = value, 3
    elif value in ("1", "t", "T", "TRUE", "true", "True"):
        typed[name], typed["compress_level"] = "lz4", 0


def _strategy(kind: str) -> _Reader:
    """The reader of `connection_open_strategy`; unknown words mean `in_order`."""

    def read(name: str, value: str, typed: dict[str, Any]) -> None:
        typed[name] = value if value in _STRATEGIES[kind] else "in_order"

    return read


def _products(name: str, value: str, typed: dict[str, Any]) -> None:
    """Pairs of name and version, as in `name/version,name/version`."""
    pairs = [part.split("/") for part in value.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise DsnError(
            f"clickhouse [dsn parse]: client_info_product: {shown(value)} is not name/version"
        )
    typed[name] = pairs


def _server_name(name: str, value: str, typed: dict[str, Any]) -> None:
    """The name that the server's certificate is checked for; it must not be empty."""
    if not value:
        raise DsnError("clickhouse [dsn parse]: tls_server_name is empty")
    typed[name] = value


def _path(name: str, value: str, typed: dict[str, Any]) -> None:
    """A path with its first slash."""
    typed[name] = value if value.startswith("/") else f"/{value}"


def _text(name: str, value: str, typed: dict[str, Any]) -> None:
    typed[name] = value


def _insecure(name: str, value: str, typed: dict[str, Any]) -> None:
    """The other name of `skip_verify`."""
    _bool("skip_verify", value, typed)


def _no_tls_config(name: str, value: str, typed: dict[str, Any]) -> None:
    """Refuse the parameter: it names a configuration registered in a Go process."""
    raise DsnError(f"invalid tls_config - no config registered under name {shown(value)}")


V2: dict[str, _Reader] = {
    "dial_timeout": _duration,
    "read_timeout": _duration,
    "connection_open_strategy": _strategy("v2"),
    "compress": _compress,
    "compress_level": lambda name, value, typed: None,
    "max_compression_buffer": _whole,
    "block_buffer_size": _block_buffer,
    "max_open_conns": _whole,
    "max_idle_conns": _whole,
    "conn_max_lifetime": _duration,
    "secure": _bool,
    "skip_verify": _bool,
    "tls_server_name": _server_name,
    "debug": _lenient_bool,
    "client_info_product": _products,
    "http_proxy": _text,
    "http_path": _path,
}
UNION: dict[str, _Reader] = {
    "timeout": _seconds_or_duration,
    "read_timeout": _seconds_or_duration,
    "write_timeout": _seconds_or_duration,
    "connection_open_strategy": _strategy("union"),
    "alt_hosts": lambda name, value, typed: None,
    "block_size": _whole,
    "pool_size": _whole,
    "no_delay": _lenient_bool,
    "check_connection_liveness": _lenient_bool,
    "tls_config": _no_tls_config,
    # the original's newer runtime spells skip_verify so
    "insecure": _insecure,
}

"""The DSN grammars of ClickHouse/clickhouse-go: v1 (the seed's `tcp://host:9000?username=...`) and v2.

The two read the same text differently, so there are three dialects: `v1` and `v2` are those drivers exactly,
and `union` is what an address means here. It takes what either accepts where the other could only fail:
a bare number is seconds (v1), a number with a unit is a duration (v2), v1's names are options and not server
settings, user info and path count as in v2, and a misspelt boolean is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from trunkline.address.golang import (
    Dsn,
    DsnError,
    GoUrl,
    duration_seconds,
    parse_bool,
    parse_int,
    parse_query,
    parse_uint,
    parse_url,
    shown,
    split_host_port,
)

__all__ = ["Dialect", "default_port", "parse"]

Dialect = Literal["v1", "v2", "union"]

_ACCOUNT = ("username", "password", "database")
_METHODS = frozenset(("none", "zstd", "lz4", "lz4hc", "gzip", "deflate", "br"))
_STRATEGIES = {
    "v1": ("random", "in_order", "time_random"),
    "v2": ("in_order", "round_robin", "random"),
    "union": ("in_order", "round_robin", "random", "time_random"),
}
_V1_SECONDS = ("timeout", "read_timeout", "write_timeout")
# whole-number settings that v1 checks by name; v2 and the union check none of them
_V1_UINTS = frozenset(
    (
        "max_block_size",
        "max_bytes_to_read",
        "max_columns_to_read",
        "max_compress_block_size",
        "max_concurrent_queries_for_user",
        "max_distributed_connections",
        "max_insert_block_size",
        "max_memory_usage",
        "max_query_size",
        "max_read_buffer_size",
        "max_result_bytes",
        "max_result_rows",
        "max_rows_to_group_by",
        "max_rows_to_read",
        "max_rows_to_sort",
        "max_threads",
        "min_compress_block_size",
        "min_insert_block_size_bytes",
        "min_insert_block_size_rows",
        "priority",
    )
)


def default_port(fields: dict[str, Any]) -> int:
    """The port that an address without one means here (Go has none and fails at the dial)."""
    secure = bool(fields["typed"].get("secure"))
    if fields["protocol"] == "http":
        return 8443 if secure else 8123
    return 9440 if secure else 9000


def parse(dsn: str, dialect: Dialect = "union") -> Dsn:
    """The DSN as the named driver reads it; raises `DsnError` where it errs. `fields` has `protocol`,
    `typed`, and where there are any `hosts` and `settings`."""
    url = parse_url(dsn, several_ports=True)
    if not url.host:
        raise DsnError("parse dsn address failed" if dialect != "v1" else "no host")
    query = parse_query(url.query, strict=False)
    params = {name: value for name, value in query.items() if name not in _ACCOUNT}
    hosts = [_host(part) for part in url.host.split(",")]
    fields: dict[str, Any] = {"protocol": "native", "typed": {}}
    if dialect == "v1":
        fields["typed"] = _v1_typed(params)
        user, password, database = "default", "", "default"
    else:
        _v2_fields(url.scheme, params, fields, union=dialect == "union")
        user, password, database = _v2_account(url)
    if dialect != "v2" and params.get("alt_hosts"):
        hosts += [_host(part) for part in params["alt_hosts"].split(",")]
    if len(hosts) > 1:
        fields["hosts"] = [{"host": host, "port": port} for host, port in hosts]
    account = [
        query.get(name) or value for name, value in zip(_ACCOUNT, (user, password, database), strict=True)
    ]
    return Dsn("tcp", hosts[0][0], hosts[0][1], account[0], account[1], account[2], params, fields)


def _host(text: str) -> tuple[str, int | None]:
    host, port = split_host_port(text) or (text.strip("[]"), "")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise DsnError("invalid port after host")
    return host, int(port) if port else None


def _v2_account(url: GoUrl) -> tuple[str, str, str]:
    return url.user or "", url.password or "", url.path.removeprefix("/")


def _v1_typed(params: dict[str, str]) -> dict[str, Any]:
    """v1 passes over what it cannot read (`secure=yes` is plain!), but for the settings it knows."""
    typed: dict[str, Any] = {}
    for name, value in params.items():
        if name in _V1_SECONDS and _seconds(value) is not None:
            typed[f"{name}_seconds"] = _seconds(value)
        elif name in ("secure", "skip_verify"):
            typed[name] = value in ("1", "t", "T", "TRUE", "true", "True")
        elif name in _V1_UINTS:
            parse_uint(value)
    return typed


def _seconds(value: str) -> float | None:
    digits = value.removeprefix("+").replace(".", "", 1)
    return float(value) if digits.isascii() and digits.isdigit() and len(digits) < 18 else None


def _v2_fields(scheme: str, params: dict[str, str], fields: dict[str, Any], *, union: bool) -> None:
    typed: dict[str, Any] = fields["typed"]
    settings: dict[str, Any] = {}
    for name, value in params.items():
        if union and name in _UNION:
            _UNION[name](name, value, typed)
        elif name in _V2:
            _V2[name](name, value, typed)
        else:
            settings[name] = _setting(value)
    if "compress_level" in params:
        typed["compress_level"] = parse_int(params["compress_level"], bits=8)
    if settings:
        fields["settings"] = settings
    if scheme in ("http", "https"):
        fields["protocol"] = "http"
        if bool(typed.get("secure")) != (scheme == "https"):
            wrong = "https without TLS" if scheme == "https" else "http with TLS"
            raise DsnError(f"clickhouse [dsn parse]: {wrong}")
    if "tls_server_name" in typed and not typed.get("secure"):
        raise DsnError("clickhouse [dsn parse]: tls_server_name needs secure=true")


def _setting(value: str) -> int | str:
    if value in ("true", "false"):
        return int(value == "true")
    try:
        return parse_int(value)
    except DsnError:
        return value.lower()


_Reader = Callable[[str, str, dict[str, Any]], None]


def _duration(name: str, value: str, typed: dict[str, Any]) -> None:
    try:
        typed[f"{name}_seconds"] = duration_seconds(value)
        return
    except DsnError as error:
        text = f"clickhouse [dsn parse]:{name.replace('_', ' ')}: {error}"
    raise DsnError(text)


def _seconds_or_duration(name: str, value: str, typed: dict[str, Any]) -> None:
    seconds = _seconds(value)
    if seconds is None:
        _duration(name, value, typed)
    else:
        typed[f"{name}_seconds"] = seconds


def _bool(name: str, value: str, typed: dict[str, Any]) -> None:
    """The bare name (`?secure`) is true; a misspelling is an error: nobody is in plain by accident."""
    try:
        typed[name] = value == "" or parse_bool(value)
        return
    except DsnError as error:
        text = f"clickhouse [dsn parse]:{name}: {error}"
    raise DsnError(text)


def _lenient_bool(name: str, value: str, typed: dict[str, Any]) -> None:
    typed[name] = value in ("1", "t", "T", "TRUE", "true", "True")


def _whole(name: str, value: str, typed: dict[str, Any]) -> None:
    typed[name] = parse_int(value, function="Atoi")


def _block_buffer(name: str, value: str, typed: dict[str, Any]) -> None:
    typed[name] = parse_uint(value, bits=8)
    if not typed[name]:
        raise DsnError("block_buffer_size must be greater than 0")


def _compress(name: str, value: str, typed: dict[str, Any]) -> None:
    if value in _METHODS:
        typed[name], typed["compress_level"] = value, 3
    elif value in ("1", "t", "T", "TRUE", "true", "True"):
        typed[name], typed["compress_level"] = "lz4", 0


def _strategy(kind: Dialect) -> _Reader:
    def read(name: str, value: str, typed: dict[str, Any]) -> None:
        typed[name] = value if value in _STRATEGIES[kind] else "in_order"

    return read


def _products(name: str, value: str, typed: dict[str, Any]) -> None:
    pairs = [part.split("/") for part in value.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise DsnError(f"clickhouse [dsn parse]: client_info_product: {shown(value)} is not name/version")
    typed[name] = pairs


def _server_name(name: str, value: str, typed: dict[str, Any]) -> None:
    if not value:
        raise DsnError("clickhouse [dsn parse]: tls_server_name is empty")
    typed[name] = value


def _path(name: str, value: str, typed: dict[str, Any]) -> None:
    typed[name] = value if value.startswith("/") else f"/{value}"


def _text(name: str, value: str, typed: dict[str, Any]) -> None:
    typed[name] = value


def _insecure(name: str, value: str, typed: dict[str, Any]) -> None:
    _bool("skip_verify", value, typed)


def _no_tls_config(name: str, value: str, typed: dict[str, Any]) -> None:
    raise DsnError(f"invalid tls_config - no config registered under name {shown(value)}")


_V2: dict[str, _Reader] = {
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
_UNION: dict[str, _Reader] = {
    "dial_timeout": _seconds_or_duration,
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

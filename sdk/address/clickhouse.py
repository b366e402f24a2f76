"""The DSN grammars of ClickHouse/clickhouse-go: v1 (`tcp://host:9000?username=...`) and v2.

The two versions read the same text differently. The dialects `v1` and `v2` follow the drivers
exactly; the dialect `union` is the meaning of Trunkline's addresses. `union` accepts text that only
one version accepts: a bare number is seconds (v1), except for `dial_timeout`, which v1 lacks; a
number with a unit is a duration (v2); v1's names are options, not server settings; user info and
path count as in v2; a misspelt boolean is an error.
"""

from __future__ import annotations

from typing import Any, Literal

from trunkline.address.clickhouse_params import UNION, V2, seconds
from trunkline.address.golang import (
    Dsn,
    DsnError,
    GoUrl,
    parse_int,
    parse_query,
    parse_uint,
    parse_url,
    split_host_port,
)

__all__ = ["Dialect", "default_port", "parse"]

Dialect = Literal["v1", "v2", "union"]

_ACCOUNT = ("username", "password", "database")
_V1_SECONDS = ("timeout", "read_timeout", "write_timeout")
# Whole-number settings that v1 checks by name. v2 and the union check none.
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
    """The port of an address without a port. Go has no default port and fails at the dial."""
    secure = bool(fields["typed"].get("secure"))
    if fields["protocol"] == "http":
        return 8443 if secure else 8123
    return 9440 if secure else 9000


def parse(dsn: str, dialect: Dialect = "union") -> Dsn:
    """Parse the DSN by the rules of a dialect; raises `DsnError`.

    `fields` has `protocol`, `typed`, and if present `hosts` and `settings`.
    """
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
        query.get(name) or value
        for name, value in zip(_ACCOUNT, (user, password, database), strict=True)
    ]
    return Dsn("tcp", hosts[0][0], hosts[0][1], account[0], account[1], account[2], params, fields)


def _host(text: str) -> tuple[str, int | None]:
    """Host and port of a server; the port is None if absent."""
    host, port = split_host_port(text) or (text.strip("[]"), "")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise DsnError("invalid port after host")
    return host, int(port) if port else None


def _v2_account(url: GoUrl) -> tuple[str, str, str]:
    return url.user or "", url.password or "", url.path.removeprefix("/")


def _v1_typed(params: dict[str, str]) -> dict[str, Any]:
    """v1 ignores values that it cannot read (`secure=yes` is no TLS!), but checks the settings that
    it knows."""
    typed: dict[str, Any] = {}
    for name, value in params.items():
        if name in _V1_SECONDS and seconds(value) is not None:
            typed[f"{name}_seconds"] = seconds(value)
        elif name in ("secure", "skip_verify"):
            typed[name] = value in ("1", "t", "T", "TRUE", "true", "True")
        elif name in _V1_UINTS:
            parse_uint(value)
    return typed


def _v2_fields(scheme: str, params: dict[str, str], fields: dict[str, Any], *, union: bool) -> None:
    """Fill in `fields` by the rules of v2 or of the union."""
    typed: dict[str, Any] = fields["typed"]
    settings: dict[str, Any] = {}
    for name, value in params.items():
        if union and name in UNION:
            UNION[name](name, value, typed)
        elif name in V2:
            V2[name](name, value, typed)
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
    """A server setting: booleans as 0 and 1, whole numbers, else text in lower case."""
    if value in ("true", "false"):
        return int(value == "true")
    try:
        return parse_int(value)
    except DsnError:
        return value.lower()

"""The DSN grammar of go-sql-driver/mysql:
`[user[:password]@][net[(addr)]]/dbname[?name=value&...]`.

Only the database name is percent-decoded, and the splits go from the right (last `/`, last `@`). A
password may therefore hold `@ / ( ) :` unescaped. `parse` implements the Go grammar only.
`parse_plain_url` reads plain URLs; the caller tries plain URLs only after the Go grammar has
failed.
"""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from trunkline.address.golang import (
    Dsn,
    DsnError,
    duration_seconds,
    parse_int,
    parse_url,
    path_unescape,
    query_unescape,
    shown,
    split_host_port,
)

__all__ = ["UnknownNet", "parse", "parse_plain_url"]

DEFAULT_PORT = 3306
_BOOLS = frozenset(
    (
        "allowAllFiles",
        "allowCleartextPasswords",
        "allowFallbackToPlaintext",
        "allowNativePasswords",
        "allowOldPasswords",
        "checkConnLiveness",
        "clientFoundRows",
        "columnsWithAlias",
        "compress",
        "interpolateParams",
        "multiStatements",
        "parseTime",
        "rejectReadOnly",
    )
)
_DURATIONS = frozenset(("readTimeout", "writeTimeout", "timeTruncate", "timeout"))
# With these collations a multi-byte character may end in a quote or backslash, so client-side
# quoting is unsafe.
_UNSAFE_COLLATIONS = ("big5", "sjis", "gbk", "gb2312", "cp932", "gb18030")
# Go's own names of networks, never the host name of a plain URL.
_GO_NETS = frozenset(
    ("tcp4", "tcp6", "udp", "udp4", "udp6", "ip", "ip4", "ip6", "unixgram", "unixpacket")
)


class UnknownNet(DsnError):
    """A net without an address and without a default address.

    Go reports a plain URL by the same error.
    """

    def __init__(self, net: str, *, bare: bool) -> None:
        # The net is hidden if it may be `user:password` or a part of that.
        known = shown(net) if net.isalnum() and net.islower() and len(net) < 12 else "***"
        super().__init__(f"default addr for network '{known}' unknown")
        self.maybe_url = bare and net not in _GO_NETS


def parse(dsn: str) -> Dsn:
    """The DSN as `mysql.ParseDSN` reads it; raises `DsnError` where Go returns an error (or panics:
    `strict`)."""
    left, slash, right = dsn.rpartition("/")
    if not slash and dsn:
        raise DsnError("invalid DSN: missing the slash separating the database name")
    credentials, _, place = left.rpartition("@")
    user, _, password = credentials.partition(":")
    net, address, bare = _net(place)
    name, _, query = right.partition("?")
    fields = _address_fields(net, address, bare=bare)
    params, typed, variables = _params(query)
    if variables:
        fields["system_variables"] = variables
    fields["typed"] = typed
    host, port = fields.pop("host"), fields.pop("port")
    if typed.get("tls") == "true" and host:
        fields["tls_server_name"] = host
    return Dsn(net or "tcp", host, port, user, password, _database(name), params, fields)


def _net(place: str) -> tuple[str, str, bool]:
    """The net, the address in its braces, and whether the braces are absent."""
    net, brace, address = place.partition("(")
    if not brace:
        return net, "", True
    if not address.endswith(")"):
        if ")" in address:
            raise DsnError("invalid DSN: did you forget to escape a param value?")
        raise DsnError("invalid DSN: network address not terminated (missing closing brace)")
    return net, address[:-1], False


def _address_fields(net: str, address: str, *, bare: bool) -> dict[str, Any]:
    """The fields of the server's place: `addr`, `host`, `port`, for a unix socket also `socket`."""
    if net == "unix":
        path = address or "/tmp/mysql.sock"
        return {"socket": path, "addr": path, "host": None, "port": None}
    if not address:
        if net not in ("", "tcp"):
            raise UnknownNet(net, bare=bare)
        address = f"127.0.0.1:{DEFAULT_PORT}"
    if net in ("", "tcp") and split_host_port(address) is None:
        address = f"[{address}]:{DEFAULT_PORT}" if ":" in address else f"{address}:{DEFAULT_PORT}"
    pair = split_host_port(address) if net in ("", "tcp", "tcp4", "tcp6") else None
    host, digits = pair or (None, "")
    if host and ":" in host:
        # URLs write the zone of a link-local address so.
        host = host.replace("%25", "%", 1)
    port = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 6 else None
    return {"addr": address, "host": host, "port": port}


def _database(name: str) -> str:
    """The database's name, percent-decoded."""
    try:
        return path_unescape(name)
    except DsnError as error:
        text = f'invalid dbname "{shown(name)}": {error}'
    raise DsnError(text)


def _params(query: str) -> tuple[dict[str, str], dict[str, Any], dict[str, str]]:
    """The parameters as text, typed values, and system variables; raises DsnError."""
    params: dict[str, str] = {}
    typed: dict[str, Any] = {}
    variables: dict[str, str] = {}
    for pair in query.split("&"):
        name, equals, value = pair.partition("=")
        if equals:
            params[name] = _param(name, value, typed, variables)
    collation = params.get("collation", "")
    if typed.get("interpolateParams") and collation.startswith(_UNSAFE_COLLATIONS):
        raise DsnError("interpolateParams can not be used with unsafe collations")
    return params, typed, variables


def _param(name: str, value: str, typed: dict[str, Any], variables: dict[str, str]) -> str:
    """The parameter's text as the driver decodes it.

    The typed value or the variable goes into its mapping.
    """
    if name in _BOOLS:
        typed[name] = _bool(value)
    elif name in _DURATIONS:
        typed[f"{name}_seconds"] = duration_seconds(value)
    elif name == "maxAllowedPacket":
        typed[name] = parse_int(value, function="Atoi")
    elif name == "charset":
        typed[name] = value.split(",")
    elif name == "tls":
        typed[name] = _tls(value)
    elif name == "loc":
        return _zone(query_unescape(value))
    elif name == "connectionAttributes":
        return query_unescape(value)
    elif name == "serverPubKey":
        raise DsnError(
            f"invalid value / unknown server pub key name: {shown(query_unescape(value))}"
        )
    elif name == "strict":
        raise DsnError(
            "panic: strict mode has been removed. See https://github.com/go-sql-driver/mysql/wiki/strict-mode"
        )
    elif name != "collation":
        variables[name] = query_unescape(value)
        return variables[name]
    return value


def _bool(value: str) -> bool:
    """A boolean in the driver's spellings."""
    if value in ("1", "true", "TRUE", "True"):
        return True
    if value in ("0", "false", "FALSE", "False"):
        return False
    raise DsnError(f"invalid bool value: {shown(value)}")


def _tls(value: str) -> str:
    """The value of `tls`: a boolean as text, `skip-verify` or `preferred`."""
    try:
        return "true" if _bool(value) else "false"
    except DsnError:
        pass
    if value.lower() in ("skip-verify", "preferred"):
        return value.lower()
    # Such a name refers to a configuration registered in the Go process, which Trunkline does not
    # have.
    raise DsnError(f"invalid value / unknown config name: {shown(query_unescape(value))}")


def _zone(name: str) -> str:
    """A time zone that this machine knows."""
    if name in ("", "UTC", "Local"):
        return name
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        pass
    else:
        return name
    raise DsnError(f"unknown time zone {shown(name)}")


def parse_plain_url(dsn: str) -> Dsn:
    """A plain URL `user:password@host[:port]/dbname[?params]`, as other tools write it.

    Go's driver refuses such a URL. User and password are percent-decoded; the parameters are the Go
    driver's.
    """
    head, question, query = dsn.partition("?")
    url = parse_url("mysql://" + head)
    host = url.host if split_host_port(url.host) or not url.host.startswith("[") else url.host[1:-1]
    result = parse(f"tcp({host})/{head.partition('/')[2]}{question}{query}")
    result.user, result.password = url.user or "", url.password or ""
    return result

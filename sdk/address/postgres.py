"""The connection strings of lib/pq: a URL or libpq's `key=value` pairs, over defaults from the
environment.

Grammar and checks are those of lib/pq's development head: values are checked here, not at the dial,
and the default `sslmode` is `prefer`. `parse` gets the environment as an argument and reads no
file. The driver reads the service file, the password file and the certificates.
"""

from __future__ import annotations

import ipaddress
import os.path
from collections.abc import Callable, Mapping
from typing import Any

from trunkline.address.conninfo import parse_pairs
from trunkline.address.golang import (
    Dsn,
    DsnError,
    parse_int,
    parse_query,
    parse_uint,
    parse_url,
    shown,
)

__all__ = ["parse", "resolve"]

_ENV = {
    "PGHOST": "host",
    "PGHOSTADDR": "hostaddr",
    "PGPORT": "port",
    "PGDATABASE": "dbname",
    "PGUSER": "user",
    "PGPASSWORD": "password",
    "PGPASSFILE": "passfile",
    "PGOPTIONS": "options",
    "PGAPPNAME": "application_name",
    "PGSSLMODE": "sslmode",
    "PGSSLNEGOTIATION": "sslnegotiation",
    "PGSSLCERT": "sslcert",
    "PGSSLKEY": "sslkey",
    "PGSSLROOTCERT": "sslrootcert",
    "PGSSLSNI": "sslsni",
    "PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version",
    "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version",
    "PGKRBSRVNAME": "krbsrvname",
    "PGCONNECT_TIMEOUT": "connect_timeout",
    "PGCLIENTENCODING": "client_encoding",
    "PGDATESTYLE": "datestyle",
    "PGTZ": "tz",
    "PGGEQO": "geqo",
    "PGTARGETSESSIONATTRS": "target_session_attrs",
    "PGLOADBALANCEHOSTS": "load_balance_hosts",
    "PGMINPROTOCOLVERSION": "min_protocol_version",
    "PGMAXPROTOCOLVERSION": "max_protocol_version",
    "PGSERVICE": "service",
    "PGSERVICEFILE": "servicefile",
    "PGREQUIREAUTH": "require_auth",
}
_REFUSED_ENV = (
    "PGREQUIRESSL",
    "PGSSLCOMPRESSION",
    "PGREALM",
    "PGGSSENCMODE",
    "PGGSSDELEGATION",
    "PGGSSLIB",
    "PGCHANNELBINDING",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLCERTMODE",
    "PGREQUIREPEER",
)
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-full", "verify-ca")
_TLS_VERSIONS = ("TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_PROTOCOLS = ("3.0", "3.2", "latest")
_METHODS = ("none", "password", "md5", "gss", "scram-sha-256")
_CHOICES: dict[str, tuple[str, ...]] = {
    "sslmode": _SSL_MODES,
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "min_protocol_version": _PROTOCOLS,
    "max_protocol_version": _PROTOCOLS,
    "target_session_attrs": (
        "any",
        "read-write",
        "read-only",
        "primary",
        "standby",
        "prefer-standby",
    ),
    "load_balance_hosts": ("disable", "random"),
}
_BOOLS = ("sslsni", "sslinline", "binary_parameters", "disable_prepared_binary_result")
_TRUE = ("1", "t", "T", "true", "TRUE", "True", "yes", "on")
_FILES = ("sslcert", "sslkey", "sslrootcert", "passfile", "servicefile")
_PLACE = ("host", "hostaddr", "port", "dbname", "database", "user", "password")
_KNOWN = frozenset(
    (
        *_ENV.values(),
        *_PLACE,
        *_CHOICES,
        *_BOOLS,
        "fallback_application_name",
        "krbspn",
        "connect_timeout",
    )
)


def parse(dsn: str, environ: Mapping[str, str]) -> Dsn:
    """Parse the DSN over `environ` as `pq.NewConfig` does; raises `DsnError` where Go returns an
    error.

    `user` is None for the system's user. `fields` has `sslmode` (the effective mode), `typed`, and
    if present `runtime` (parameters for the server), `hosts`, `hostaddr`, `socket`.
    """
    given = _from_environment(environ)
    url = dsn.startswith(("postgres://", "postgresql://"))
    given.update(_from_url(dsn) if url else parse_pairs(dsn, _KNOWN))
    typed = _check(given)
    fields: dict[str, Any] = {"typed": typed}
    runtime = {name: value for name, value in given.items() if name not in _KNOWN}
    if runtime:
        fields["runtime"] = runtime
    hosts = _hosts(given)
    first = hosts[0]
    if len(hosts) > 1:
        fields["hosts"] = hosts
    if "hostaddr" in first:
        fields["hostaddr"] = first["hostaddr"]
    unix = first["host"].startswith(("/", "@"))
    if unix:
        fields["socket"] = f"{first['host']}/.s.PGSQL.{first['port']}"
    fields["sslmode"] = "disable" if unix else _sslmode(given)
    params = {name: value for name, value in given.items() if name in _KNOWN and name not in _PLACE}
    database = given.get("database", given.get("dbname", ""))
    net = "unix" if unix else "tcp"
    user, password = given.get("user"), given.get("password", "")
    return Dsn(net, first["host"], first["port"], user, password, database, params, fields)


def resolve(params: Mapping[str, str], cwd: str) -> dict[str, str]:
    """The parameters with relative files made absolute against `cwd`."""
    inline = params.get("sslinline", "") in _TRUE
    found = dict(params)
    for name in _FILES:
        value = params.get(name)
        # `system` means the authorities that OpenSSL trusts. An inline value is the content of a
        # file, no path.
        certificate = name.startswith("ssl")
        if value and not (certificate and (inline or value == "system")):
            found[name] = os.path.join(cwd, value)
    return found


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The parameters that the environment sets; DsnError for variables that lib/pq does not
    support."""
    for name in _REFUSED_ENV:
        if environ.get(name):
            raise DsnError(f"pq: environment variable {name} is not supported")
    return {key: environ[name] for name, key in _ENV.items() if environ.get(name)}


def _from_url(dsn: str) -> dict[str, str]:
    """The URL as parameters; empty parts count as absent."""
    url = parse_url(dsn)
    host, port = url.host, ""
    first, *others = host.split(",")
    if others and any(":" in one and not one.endswith("]") for one in (first, *others[:-1])):
        raise DsnError(
            "several hosts have their ports behind the path: write h1,h2/db?port=5432,5433"
        )
    if not host.endswith("]") and ":" in host:
        host, _, port = host.rpartition(":")
    found = {
        "host": host.removeprefix("[").removesuffix("]"),
        "port": port,
        "user": url.user or "",
        "password": url.password or "",
        "dbname": url.path.removeprefix("/"),
    }
    found.update(
        {name: value for name, value in parse_query(url.query, strict=False).items() if value}
    )
    return {name: value for name, value in found.items() if value}


def _wrong(name: str, text: str) -> DsnError:
    """lib/pq's error for a bad value."""
    return DsnError(f'pq: wrong value for "{name}": {text}')


def _check(given: dict[str, str]) -> dict[str, Any]:
    """Check every value that lib/pq checks; returns the typed values."""
    typed: dict[str, Any] = {}
    for name, value in given.items():
        if name in _CHOICES:
            _one_of(name, value, _CHOICES[name])
        elif name in _BOOLS:
            typed[name] = _bool(name, value)
        elif name in _RULES:
            _RULES[name](name, value)
    if "connect_timeout" in given:
        typed["connect_timeout_seconds"] = _parsed(
            "connect_timeout", parse_int, given["connect_timeout"]
        )
    if given.get("min_protocol_version", "3.0") > given.get("max_protocol_version", "latest"):
        raise DsnError("pq: min_protocol_version is above max_protocol_version")
    return typed


def _parsed(name: str, read: Callable[[str], int], value: str) -> int:
    """`read(value)`, with an error that names the parameter."""
    try:
        return read(value)
    except DsnError as error:
        text = str(error)
    raise _wrong(name, text)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """DsnError unless `value` is one of `choices`."""
    if value not in choices:
        listed = f"{', '.join(choices[:-1])}, or {choices[-1]}"
        raise _wrong(name, f'"{shown(value)}" is not supported; supported values are {listed}')


def _bool(name: str, value: str) -> bool:
    """A boolean in lib/pq's spellings."""
    if value in _TRUE:
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False", "no", "off"):
        return False
    raise _wrong(name, f'strconv.ParseBool: parsing "{shown(value)}": invalid syntax')


def _utf8_only(name: str, value: str) -> None:
    """lib/pq speaks UTF-8 only."""
    if "".join(filter(str.isalnum, value)).upper() != "UTF8":
        raise DsnError(
            f'pq: unsupported client_encoding "{shown(value)}": must be absent or "UTF8"'
        )


def _iso_only(name: str, value: str) -> None:
    """lib/pq reads dates in this style only."""
    if value != "ISO, MDY":
        raise DsnError(
            f'pq: setting datestyle "{shown(value)}" is not supported: must be absent or "ISO, MDY"'
        )


def _no_kerberos(name: str, value: str) -> None:
    """Refuse the parameter: Kerberos is not supported."""
    raise DsnError(f"pq: {name}: Kerberos is not supported")


def _auth_methods(name: str, value: str) -> None:
    """Check a list of authentication methods.

    Forbidden methods (`!md5`) cannot be mixed with allowed methods.
    """
    if not value:
        # An empty value allows any method.
        return
    methods = value.split(",")
    for method in methods:
        _one_of(name, method, (*_METHODS, *(f"!{known}" for known in _METHODS)))
    if len({method.startswith("!") for method in methods}) > 1:
        raise _wrong(name, "plain methods and ones with ! cannot be mixed")


_RULES: dict[str, Callable[[str, str], None]] = {
    "client_encoding": _utf8_only,
    "datestyle": _iso_only,
    "krbsrvname": _no_kerberos,
    "require_auth": _auth_methods,
}


def _port(text: str) -> int:
    return parse_uint(text, bits=16)


def _hosts(given: dict[str, str]) -> list[dict[str, Any]]:
    """Every server to be tried, in order: `host`, `port`, and `hostaddr` if given."""
    addresses = given["hostaddr"].split(",") if given.get("hostaddr") else []
    for address in filter(None, addresses):
        _check_ip(address)
    names = given["host"].split(",") if given.get("host") else []
    if names and addresses and len(names) != len(addresses):
        raise DsnError(
            f"pq: could not match {len(names)} host names to {len(addresses)} hostaddr values"
        )
    names = names or ["localhost", *[""] * (len(addresses) - 1)]
    ports = _ports(given.get("port"), len(names))
    addresses = addresses or [""] * len(names)
    servers = zip(names, ports, addresses, strict=True)
    return [_server(name, port, address) for name, port, address in servers]


def _ports(text: str | None, count: int) -> list[int]:
    """A port for each host; a single port counts for all hosts."""
    parts = ["5432"] if text is None else text.split(",")
    if len(parts) == 1:
        return [_parsed("port", _port, parts[0])] * count
    ports = [_parsed("port", _port, part or "5432") for part in parts]
    if len(ports) != count:
        raise DsnError(f"pq: could not match {len(ports)} port numbers to {count} hosts")
    return ports


def _server(name: str, port: int, address: str) -> dict[str, Any]:
    if address:
        return {"host": name, "port": port, "hostaddr": address}
    return {"host": name or "localhost", "port": port}


def _check_ip(text: str) -> None:
    """DsnError unless `text` is an IP address."""
    try:
        ipaddress.ip_address(text)
        return
    except ValueError:
        pass
    raise _wrong("hostaddr", f'ParseAddr("{shown(text)}"): unable to parse IP')


def _sslmode(given: dict[str, str]) -> str:
    """The effective TLS mode; DsnError for a mode too weak for the other parameters."""
    system = given.get("sslrootcert") == "system"
    mode = given.get("sslmode", "verify-full" if system else "prefer")
    if system and mode != "verify-full":
        text = f'weak sslmode "{mode}" may not be used with sslrootcert=system (use "verify-full")'
        raise DsnError(f"pq: {text}")
    if given.get("sslnegotiation") == "direct" and mode in ("disable", "allow", "prefer"):
        text = f'weak sslmode "{mode}" may not be used with sslnegotiation=direct (use "require")'
        raise DsnError(f"pq: {text}")
    return mode

"""The requests of a mysql address.

The plan has the arguments of mysql-connector-python, and the part that the driver carries out.

Every parameter of go-sql-driver is in `PARAMETERS`. Any other name is a system variable. All
system variables go into one `SET a = x, b = y` after connecting, unchanged, as Go sends them.
"""

from __future__ import annotations

import codecs
import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mysql.connector.constants import ClientFlag

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.mysql.auth import Policy
from trunkline.address import Address

__all__ = ["PARAMETERS", "UTF8", "Charset", "Plan", "Tls", "plan_of"]

PARAMETERS = {
    "allowAllFiles": "allow_local_infile",
    "allowCleartextPasswords": "the login may use mysql_clear_password, over TLS or a unix socket",
    "allowFallbackToPlaintext": "with tls=true or skip-verify: plain where the server offers no TLS",
    "allowNativePasswords": "false refuses mysql_native_password",
    "allowOldPasswords": "no effect: the library knows no such login",
    "charset": "SET NAMES, each of the list until the server takes one",
    "checkConnLiveness": "no effect: a link is always looked at before a statement",
    "clientFoundRows": "client flag FOUND_ROWS",
    "collation": "COLLATE of SET NAMES",
    "columnsWithAlias": "no effect: columns are named without their table",
    "compress": "compress",
    "connectionAttributes": "conn_attrs",
    "interpolateParams": "no effect: values are always put into the text here",
    "loc": "zone of DATETIME and TIMESTAMP values, both ways",
    "maxAllowedPacket": "longest statement, beside the server's own limit",
    "multiStatements": "client flag MULTI_STATEMENTS",
    "parseTime": "no effect: dates are always dates",
    "readTimeout": "read_timeout, whole seconds, rounded up",
    "rejectReadOnly": "a link to a server that has become read-only is given up",
    "serverPubKey": "refused by the address: keys are registered in Go programs only",
    "timeTruncate": "bound datetimes are cut to it",
    "timeout": "connection_timeout",
    "tls": "see Tls; names of registered configurations are refused by the address",
    "writeTimeout": "write_timeout, whole seconds, rounded up",
}
"""Each parameter, and its effect."""


class Tls(Enum):
    """The use of TLS on a link."""

    OFF = "plain"
    IF_ASKED = "plain, but TLS where the login needs it"
    PREFERRED = "TLS where the server offers it, not verified"
    REQUIRED = "TLS, not verified"
    VERIFIED = "TLS with a certificate that is right for the host"


@dataclass(frozen=True, slots=True)
class Charset:
    """A character set of the connection, and Python's codec for it."""

    name: str
    codec: str
    hides_backslash: bool = False
    """The second byte of a character may be a backslash
    or a quote, so strings are written in hexadecimal.
    """


UTF8 = Charset("utf8mb4", "utf-8")
_UTF8_COLLATION = "utf8mb4_general_ci"
_UNSAFE = ("big5", "sjis", "cp932", "gbk", "gb18030")
# The latin1 of MySQL is the cp1252 of Windows.
_CODECS = {
    "utf8": "utf-8",
    "utf8mb3": "utf-8",
    "utf8mb4": "utf-8",
    "binary": "utf-8",
    "latin1": "cp1252",
}
_NAMES = "ascii latin2 cp1250 cp1251 cp1256 cp1257 cp850 cp852 cp866 greek hebrew gb2312 euckr ujis"


@dataclass(frozen=True, slots=True)
class Plan:
    """The parsed requests of one address."""

    peer: str
    """The server's name in texts, without the user."""
    arguments: Mapping[str, Any]
    """Arguments for `mysql.connector.connect`, except TLS and timeouts."""
    tls: Tls
    verify: Mapping[str, Any]
    """The TLS arguments of a link that has TLS."""
    fallback: bool
    """VERIFIED and REQUIRED: the link is plain if the server has no TLS."""
    policy: Policy
    charsets: tuple[Charset, ...]
    """Character sets to try in order. Without any, UTF-8 as the library sets it."""
    collation: str | None
    settings: str
    """`SET ...` with the system variables, or ""."""
    connect_s: float | None
    """Seconds for the connection; None for no limit."""
    read_s: int | None
    """Seconds that a read may wait for the server; None for no limit."""
    write_s: int | None
    """Seconds that a write may wait for the server; None for no limit."""
    loc: str | None
    """A zone's name or `Local`. None: datetimes that are read have no zone."""
    time_zone: str | None
    """The time zone that the address sets for the session; None if it sets none."""
    truncate_us: int
    """Microseconds to which bound datetimes are cut; 0 for no cut."""
    longest: int
    """Longest statement in bytes; 0 for the server's own limit."""
    multi: bool
    """Several statements in one text are allowed."""
    files: bool
    """LOAD DATA LOCAL may read any file."""
    drops_read_only: bool
    """A link to a server that has become read-only is given up."""


def plan_of(address: Address) -> Plan:
    """The plan of an address. FatalError, with advice, for a request that cannot be met."""
    typed: Mapping[str, Any] = address.extra["typed"]
    tls, verify = _tls(address, typed)
    collation = address.params.get("collation") or None
    return Plan(
        peer=str(address.path if address.net == "unix" else f"{address.host}:{address.port}"),
        arguments={**_place(address), **_login(address), **_flags(address, typed)},
        tls=tls,
        verify=verify,
        fallback=bool(typed.get("allowFallbackToPlaintext")),
        policy=Policy(
            local=address.net == "unix",
            cleartext=bool(typed.get("allowCleartextPasswords")),
            native=bool(typed.get("allowNativePasswords", True)),
        ),
        charsets=tuple(_charset(name) for name in typed.get("charset") or _charset_of(collation)),
        collation=collation,
        settings=_settings(address.extra.get("system_variables", {})),
        connect_s=typed.get("timeout_seconds") or None,
        read_s=_whole(typed.get("readTimeout_seconds")),
        write_s=_whole(typed.get("writeTimeout_seconds")),
        loc=address.params.get("loc") or None,
        time_zone=_time_zone(address.extra.get("system_variables", {})),
        truncate_us=int(typed.get("timeTruncate_seconds", 0) * 1_000_000),
        longest=max(0, typed.get("maxAllowedPacket", 0)),
        multi=bool(typed.get("multiStatements")),
        files=bool(typed.get("allowAllFiles")),
        drops_read_only=bool(typed.get("rejectReadOnly")),
    )


def _place(address: Address) -> dict[str, Any]:
    """The arguments that name the server."""
    if address.net == "unix":
        return {"unix_socket": address.path}
    if address.net not in ("tcp", "tcp4", "tcp6"):
        raise FatalError(
            f"mysql:// cannot connect over the network {address.net!r}: write tcp(host:port) or unix(/path)"
        )
    if not address.host or not address.port or address.port > 65_535:
        raise FatalError(
            "the mysql address needs a host and a port from 1 to 65535: write tcp(host:port)"
        )
    return {"host": address.host, "port": address.port, "force_ipv6": address.net == "tcp6"}


def _login(address: Address) -> dict[str, Any]:
    # With None the library would choose a user itself.
    arguments = {"user": address.user or "", "password": address.password or ""}
    return {**arguments, "database": address.database} if address.database else arguments


def _flags(address: Address, typed: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that switch features of the library on and off."""
    flags = [
        ClientFlag.MULTI_STATEMENTS
        if typed.get("multiStatements")
        else -ClientFlag.MULTI_STATEMENTS
    ]
    if typed.get("clientFoundRows"):
        flags.append(ClientFlag.FOUND_ROWS)
    return {
        "client_flags": flags,
        "compress": bool(typed.get("compress")),
        "allow_local_infile": bool(typed.get("allowAllFiles")),
        "conn_attrs": _attributes(address.params.get("connectionAttributes", "")),
        "charset": UTF8.name,
        "collation": _UTF8_COLLATION,
        "autocommit": True,
    }


def _attributes(text: str) -> dict[str, str]:
    """The connection attributes, which are written `name:value,name:value`."""
    pairs = (pair.partition(":") for pair in text.split(","))
    found = {name.strip(): value.strip() for name, colon, value in pairs if colon}
    for name in found:
        if not name or name.startswith("_") or len(name) > 32 or len(found[name]) > 1024:
            raise FatalError(
                f"connectionAttributes: {name[:40]!r} cannot be sent; a name has 1 to 32 characters and does"
                " not begin with _, a value has 1024 at most"
            )
    return found


def _charset(name: str) -> Charset:
    """The character set of this name, with Python's codec if there is one."""
    found = name.strip().lower()
    codec = _CODECS.get(found, found if found in (*_NAMES.split(), *_UNSAFE) else "")
    # An unknown name goes to the server.
    # The server may refuse it, and then the next name of the list is tried.
    return Charset(found, codecs.lookup(codec).name if codec else "", found in _UNSAFE)


def _charset_of(collation: str | None) -> list[str]:
    return [collation.partition("_")[0]] if collation else []


def _settings(variables: Mapping[str, str]) -> str:
    """A SET statement for the system variables, or "".

    FatalError for variables of the character set.
    """
    for name in variables:
        if re.search(r"character_set_(client|connection|results)|collation_connection", name, re.I):
            raise FatalError(
                f"{name} would change how texts are written and read: use charset= and collation="
            )
    return (
        "SET " + ", ".join(f"{name} = {value}" for name, value in variables.items())
        if variables
        else ""
    )


def _time_zone(variables: Mapping[str, str]) -> str | None:
    """The time zone among the system variables, under any of its names."""
    names = ("time_zone", "@@time_zone", "session time_zone", "@@session.time_zone")
    return next(
        (value for name, value in variables.items() if name.strip("` ").lower() in names), None
    )


def _whole(seconds: float | None) -> int | None:
    return math.ceil(seconds) if seconds else None


def _tls(address: Address, typed: Mapping[str, Any]) -> tuple[Tls, dict[str, Any]]:
    """The use of TLS, and its arguments. FatalError for requests that contradict each other."""
    asked = typed.get("tls")
    cafile, certfile, keyfile = (address.option(name) for name in ("cafile", "certfile", "keyfile"))
    unchecked = bool(address.option("insecureSkipVerify"))
    wants = bool(cafile or certfile or keyfile or unchecked)
    if wants and (asked == "false" or address.net == "unix"):
        raise FatalError(
            "the options ask for TLS, and the address for a link without: leave one of them out"
        )
    if keyfile and not certfile:
        raise FatalError(f"keyfile={keyfile} needs a certfile beside it")
    if address.net == "unix":
        if asked in ("true", "skip-verify"):
            raise FatalError(f"tls={asked} makes no sense on a unix socket: leave it out")
        return Tls.OFF, {}
    verify = {
        "ssl_ca": cafile,
        "ssl_cert": certfile,
        "ssl_key": keyfile or certfile,
    }
    own = {name: value for name, value in verify.items() if value}
    if asked == "true" or (asked is None and wants):
        if unchecked:
            return Tls.REQUIRED, own
        return Tls.VERIFIED, {**own, "ssl_verify_cert": True, "ssl_verify_identity": True}
    if asked is None:
        return (Tls.IF_ASKED if _loopback(str(address.host)) else Tls.PREFERRED), {}
    modes = {"false": Tls.OFF, "skip-verify": Tls.REQUIRED, "preferred": Tls.PREFERRED}
    return modes[str(asked)], own


def _loopback(host: str) -> bool:
    """Whether a host is this machine."""
    if host.lower() in ("localhost", "localhost."):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

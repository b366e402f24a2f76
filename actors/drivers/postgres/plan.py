"""The keyword arguments of `psycopg2.connect` for a postgres address.

libpq reads each keyword that is not given from a PG... variable of its process. The variables of
a worker are not those of the program that dialled, and the address parser has applied the
program's variables already. So libpq is given a value for every keyword that has a variable. A
few variables have no keyword, or no value of their keyword is neutral.
`forget_environment` removes those variables from the worker's environment.
"""

from __future__ import annotations

import math
import os
import pwd
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import psycopg2
from psycopg2.extensions import parse_dsn

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.postgres.service import with_service
from trunkline.actors.drivers.postgres.settings import AT_START
from trunkline.actors.net.servers import time_to_tell
from trunkline.address import Address
from trunkline.deadline import Deadline

__all__ = [
    "PARAMETERS",
    "Use",
    "connect_arguments",
    "connect_seconds",
    "forget_environment",
    "one_by_one",
]


@dataclass(frozen=True, slots=True)
class Use:
    """The use of one parameter.

    At most one of the first three fields is set; without
    any, the parameter is accepted without effect.
    """

    keyword: str = ""
    """The keyword of libpq."""
    setting: str = ""
    """The run-time parameter of the server."""
    refused: str = ""
    """Why the parameter is refused, if its value asks for a feature that libpq does not have."""
    harmless: tuple[str, ...] = ()
    """Values of a refused parameter that ask for nothing."""


_OFF = ("0", "f", "F", "false", "FALSE", "False", "no", "off")

PARAMETERS: dict[str, Use] = {
    **{
        name: Use(keyword=name)
        for name in (
            "passfile",
            "options",
            "application_name",
            "fallback_application_name",
            "sslmode",
            "sslnegotiation",
            "sslcert",
            "sslkey",
            "sslrootcert",
            "sslsni",
            "ssl_min_protocol_version",
            "ssl_max_protocol_version",
            "connect_timeout",
            "client_encoding",
            "target_session_attrs",
            "load_balance_hosts",
            "require_auth",
        )
    },
    "datestyle": Use(setting="datestyle"),
    "tz": Use(setting="timezone"),
    "geqo": Use(setting="geqo"),
    "service": Use(),
    "servicefile": Use(),
    "binary_parameters": Use(),
    "disable_prepared_binary_result": Use(),
    # An upper bound. libpq speaks 3.0 and so keeps within it.
    "max_protocol_version": Use(),
    "min_protocol_version": Use(
        refused="libpq speaks protocol 3.0 here; leave it out or write 3.0", harmless=("3.0",)
    ),
    "sslinline": Use(
        refused="libpq reads certificates from files; write sslcert, sslkey and sslrootcert as paths",
        harmless=_OFF,
    ),
    "krbsrvname": Use(refused="Kerberos is not supported"),
    "krbspn": Use(refused="Kerberos is not supported"),
}
"""Every parameter that lib/pq knows, except host, hostaddr, port, dbname, database, user and
password. A parameter that lib/pq does not know is a run-time parameter of the server.
"""

_NEUTRAL = {
    "passfile": "",
    "channel_binding": "prefer",
    "hostaddr": "",
    "client_encoding": "UTF8",
    "options": "",
    "fallback_application_name": "trunkline",
    "sslmode": "prefer",
    "sslnegotiation": "postgres",
    "sslcompression": "0",
    "sslcert": "",
    "sslkey": "",
    "sslcertmode": "allow",
    "sslrootcert": "",
    "sslcrl": "",
    "sslcrldir": "",
    "sslsni": "1",
    "requirepeer": "",
    "ssl_min_protocol_version": "TLSv1.2",
    "ssl_max_protocol_version": "",
    "gssencmode": "disable",
    "gssdelegation": "0",
    "gsslib": "",
    "krbsrvname": "postgres",
    "target_session_attrs": "any",
    "load_balance_hosts": "disable",
    # As Go's dialer does: a server that has vanished is noticed after about two minutes.
    "keepalives": "1",
    "keepalives_idle": "15",
    "keepalives_interval": "15",
    "keepalives_count": "9",
}
"""A value for each keyword that has a variable.
The value is used if the address does not set the keyword.
"""
# Variables without a keyword, or whose keyword has no value that means "not given".
_NO_NEUTRAL = ("PGTZ", "PGDATESTYLE", "PGGEQO", "PGSERVICE", "PGSERVICEFILE", "PGREQUIREAUTH")


def forget_environment() -> None:
    """Remove from this process's environment the variables that libpq would apply in any case."""
    for name in _NO_NEUTRAL:
        os.environ.pop(name, None)


def one_by_one(address: Address, arguments: Mapping[str, str]) -> list[dict[str, str]]:
    """The arguments that name each server of the address alone, one dict for each server."""
    names = ("host", "port", "hostaddr")
    lists = [arguments[name].split(",") for name in names]
    count = len(_servers(address))
    return [
        {
            name: each[index] if index < len(each) else ""
            for name, each in zip(names, lists, strict=True)
        }
        for index in range(count)
    ]


def connect_seconds(address: Address, deadline: Deadline, servers: int | None = None) -> int:
    """The `connect_timeout` of libpq: whole seconds for each server, 0 for no limit.

    The time is the address's own or the time left, whichever is less.
    The time is shared by `servers` servers (None: those of the address).
    """
    given = address.extra["typed"].get("connect_timeout_seconds", 0)
    seconds = min(deadline.left() - time_to_tell(deadline), given if given > 0 else math.inf)
    if seconds == math.inf:
        return 0
    return max(1, math.floor(seconds / (servers or len(_servers(address)))))


def connect_arguments(address: Address) -> tuple[Address, dict[str, str], dict[str, str]]:
    """The address with its service's parameters, the keyword arguments, and the settings.

    The arguments have no `connect_timeout`. The settings are to be set after the login.

    FatalError for a parameter that is not supported here.
    """
    address = with_service(address)
    found = {name: value for name, value in _NEUTRAL.items() if _known(name)}
    settings: dict[str, str] = {}
    for name, value in address.params.items():
        _apply(name, value, found, settings)
    found.pop("connect_timeout", None)
    # An empty name would hide the fallback name.
    found.setdefault("application_name", found["fallback_application_name"])
    found["client_encoding"] = "UTF8"
    found.update(_tls(address))
    settings.update(address.extra.get("runtime", {}))
    early = {name: value for name, value in settings.items() if name.lower() in AT_START}
    found["options"] = _options(found["options"], early)
    found.update(_place(address))
    found["user"] = _own_name(address) if address.user is None else address.user
    found["password"] = address.password or ""
    found["dbname"] = address.database or ""
    return address, found, {name: value for name, value in settings.items() if name not in early}


def _own_name(address: Address) -> str:
    """The name of this process's user. libpq uses that name if the address names no user."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise FatalError(
            f"{address.display}: this user (id {os.geteuid()}) has no name in the system: "
            "write postgres://USER@host/database"
        ) from None


@cache
def _known(keyword: str) -> bool:
    """Whether this libpq has the keyword."""
    try:
        parse_dsn(f"{keyword}=x")
    except psycopg2.ProgrammingError:
        return False
    return True


def _apply(name: str, value: str, found: dict[str, str], settings: dict[str, str]) -> None:
    """Apply one parameter of the address to the arguments or settings.

    FatalError for a refused parameter.
    """
    use = PARAMETERS[name]
    if use.refused and value not in use.harmless:
        raise FatalError(f"{name} is refused: {use.refused}")
    if use.setting:
        settings[use.setting] = value
    elif use.keyword and not _known(use.keyword):
        raise FatalError(f"{name} needs a newer libpq: pip install --upgrade psycopg2-binary")
    elif use.keyword:
        found[use.keyword] = ("0" if value in _OFF else "1") if name == "sslsni" else value


def _tls(address: Address) -> dict[str, str]:
    """sslmode and certificates, from the DSN and from the options of `Dial`."""
    found = {
        keyword: str(address.options[option])
        for option, keyword in (
            ("cafile", "sslrootcert"),
            ("certfile", "sslcert"),
            ("keyfile", "sslkey"),
        )
        if option in address.options
    }
    for keyword in found:
        if keyword in address.params:
            raise FatalError(
                f"{keyword} and an option for the same are both given: write one of them"
            )
    any_certificate = bool(address.option("insecureSkipVerify"))
    found["sslmode"] = mode = _sslmode(address, "cafile" in address.options, any_certificate)
    if mode == "disable" and len(found) > 1:
        raise FatalError("sslmode=disable has no use for certificates: leave them or it out")
    if any_certificate and (
        mode.startswith("verify") or "sslrootcert" in (*found, *address.params)
    ):
        raise FatalError(
            "insecureSkipVerify takes any certificate, and the address wants a check: drop one"
        )
    return found


def _sslmode(address: Address, authority: bool, any_certificate: bool) -> str:
    """The sslmode: the address's own, or the mode that its options imply."""
    servers = _servers(address)
    if all(server["host"].startswith(("/", "@")) for server in servers):
        return "disable"
    given = address.params.get("sslmode")
    if given or address.params.get("sslrootcert") == "system":
        return given or "verify-full"
    if authority:
        return "verify-full"
    return "require" if any_certificate else "prefer"


def _options(given: str, settings: dict[str, str]) -> str:
    """`options` of the address, followed by run-time parameters.

    The server splits them at blanks.
    """
    words = [given] if given else []
    for name, value in settings.items():
        words.append("-c " + re.sub(r"([\\\s])", r"\\\1", f"{name}={value}"))
    return " ".join(words)


def _servers(address: Address) -> list[dict[str, str]]:
    """The servers of the address, each with host, port and hostaddr as text."""
    extra = address.extra
    one = {
        "host": address.host or "localhost",
        "port": address.port,
        "hostaddr": extra.get("hostaddr", ""),
    }
    return [
        {name: str(server.get(name, "")) for name in ("host", "port", "hostaddr")}
        for server in extra.get("hosts") or [one]
    ]


def _place(address: Address) -> dict[str, str]:
    """The places of the servers: comma-separated lists of the same length, as libpq takes them."""
    servers = _servers(address)
    found = {
        name: ",".join(server[name] for server in servers) for name in ("host", "port", "hostaddr")
    }
    if not found["hostaddr"].strip(","):
        found["hostaddr"] = ""
    return found

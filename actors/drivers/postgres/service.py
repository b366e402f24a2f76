"""Service files (`service=name`): named parameters of a connection.

They are read as libpq and lib/pq read them.

As in lib/pq, a parameter of the file wins over the
same parameter beside `service` in the address.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator
from dataclasses import replace

from trunkline.actors.driver import FatalError
from trunkline.address import Address, postgres
from trunkline.address.golang import DsnError

__all__ = ["with_service"]

_FILES = ("~/.pg_service.conf", "/etc/postgresql-common/pg_service.conf", "/etc/pg_service.conf")
"""The files that are searched if the address names none."""


def with_service(address: Address) -> Address:
    """The address with the parameters of its service. FatalError if the service does not exist."""
    name = address.params.get("service")
    if not name:
        return address
    given = address.params.get("servicefile")
    for file in [given] if given else _FILES:
        pairs = _section(os.path.expanduser(file), name)
        if pairs is not None:
            return _merged(address, pairs, name)
    where = given or "~/.pg_service.conf"
    raise FatalError(
        f"there is no service {name} in {where}: write [{name}] and its parameters there"
    )


def _section(file: str, name: str) -> dict[str, str] | None:
    """The parameters of one service in a file; None if the file or the service does not exist."""
    try:
        with open(file, encoding="utf-8") as lines:
            return _read(lines, file, name)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
    raise FatalError(f"the service file {file} cannot be read: {reason}")


def _read(lines: Iterator[str], file: str, name: str) -> dict[str, str] | None:
    """The parameters in the section `[name]` of a file; None without the section."""
    found: dict[str, str] | None = None
    for number, line in enumerate(map(str.strip, lines), 1):
        if line.startswith("["):
            if found is not None:
                break
            found = {} if line == f"[{name}]" else None
        elif found is not None and line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            # The error does not quote the line, which may hold a password.
            if not equals or not re.fullmatch(r"[\w.]+", key) or key in ("service", "servicefile"):
                raise FatalError(
                    f"line {number} of the service file {file} is not key=value of a parameter"
                )
            found[key] = value
    return found


def _merged(address: Address, pairs: dict[str, str], name: str) -> Address:
    """Parse the address again as one text of pairs. The last value of a name wins."""
    servers = address.extra.get("hosts") or [
        {"host": address.host, "port": address.port, "hostaddr": address.extra.get("hostaddr", "")}
    ]
    hostaddr = ",".join(server.get("hostaddr", "") for server in servers)
    given = {
        "host": ",".join(server["host"] for server in servers),
        "port": ",".join(str(server["port"]) for server in servers),
        **({"hostaddr": hostaddr} if hostaddr.strip(",") else {}),
        **({} if address.user is None else {"user": address.user}),
        "password": address.password or "",
        "dbname": address.database or "",
        **address.params,
        **address.extra.get("runtime", {}),
    }
    if "host" in pairs or "hostaddr" in pairs:
        # The service names other servers.
        # The address's own host, hostaddr and port do not fit those servers.
        for own in ("host", "hostaddr", "port"):
            given.pop(own, None)
    text = " ".join(f"{key}={_quoted(value)}" for key, value in {**given, **pairs}.items() if key)
    try:
        found = postgres.parse(text, {})
    except DsnError as error:
        reason = str(error)
    else:
        return replace(
            address,
            net=found.net,
            host=found.host,
            port=found.port,
            user=found.user,
            password=found.password or None,
            database=found.database or None,
            path=found.fields.get("socket") or "",
            params=found.params,
            hosts=tuple(
                (server["host"], server["port"]) for server in found.fields.get("hosts", ())
            ),
            extra=found.fields,
        )
    raise FatalError(f"the service {name} is not valid: {reason}")


def _quoted(value: str) -> str:
    return "'" + re.sub(r"(['\\])", r"\\\1", value) + "'"

"""The targets of the databases: which text is the Go driver's DSN, and its fields as an `Address`.

The prefix comes off but where the rest is no DSN by itself: a real postgres or clickhouse URL is given whole.
A plain `mysql://user:password@host:port/db`, which Go's driver refuses, is read as the URL it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from trunkline.address import clickhouse, mysql, postgres, sqlite
from trunkline.address.golang import Dsn, DsnError
from trunkline.address.host import clean_host
from trunkline.address.model import Address
from trunkline.address.schemes import Scheme
from trunkline.errors import AddressError

__all__ = ["parse_database"]


def parse_database(scheme: Scheme, rest: str, environ: Mapping[str, str]) -> Address:
    """The database's address. Its `extra` is the parser's `fields`; errors hold Go's sentence."""
    dsn = _dsn(scheme.name, rest)
    try:
        found = _parse(scheme.name, dsn, environ)
    except DsnError as error:
        text = str(error)
    else:
        return _address(scheme, dsn, found)
    raise AddressError(f"the {scheme.name} address is not valid ({text}): write it like {scheme.example}")


def _dsn(name: str, rest: str) -> str:
    if name == "postgres" and not re.match(r"\s*\w+\s*=|\s+$", rest):
        return f"postgres://{rest}"
    if name == "clickhouse" and not re.match("[a-z]+://", rest):
        return f"clickhouse://{rest}"
    return rest


def _parse(name: str, dsn: str, environ: Mapping[str, str]) -> Dsn:
    if name == "postgres":
        return postgres.parse(dsn, environ)
    if name == "clickhouse":
        return clickhouse.parse(dsn)
    if name == "sqlite3":
        if not dsn:
            raise DsnError("it names no file; :memory: is a database in memory")
        return sqlite.parse(dsn)
    return _mysql(dsn)


def _mysql(dsn: str) -> Dsn:
    try:
        return mysql.parse(dsn)
    except mysql.UnknownNet as error:
        if not error.maybe_url:
            raise
        text = str(error)
    try:
        found = mysql.parse_plain_url(dsn)
        clean_host(f"[{found.host}]" if ":" in str(found.host) else str(found.host or ""), "")
    except (DsnError, AddressError):
        pass
    else:
        return found
    raise DsnError(text)


def _address(scheme: Scheme, dsn: str, found: Dsn) -> Address:
    """The fields as an address; what Go holds as "" is absent here."""
    port = found.port
    if scheme.name == "clickhouse" and port is None:
        port = clickhouse.default_port(found.fields)
    hosts = tuple((host["host"], host["port"] or port) for host in found.fields.get("hosts", ()))
    path = found.fields.get("socket") or found.fields.get("file") or ""
    return Address(
        scheme.name,
        dsn,
        found.net,
        found.host,
        port,
        found.user if scheme.name == "postgres" else found.user or None,
        found.password or None,
        found.database or None,
        path=path,
        params=found.params,
        hosts=hosts,
        extra=found.fields,
    )

"""The targets of databases: the fields of a Go driver's DSN as an `Address`.

The row of the scheme says which text is the DSN, and how the DSN is read (`Scheme.read_dsn`).
"""

from __future__ import annotations

from collections.abc import Mapping

from trunkline.address.golang import Dsn, DsnError
from trunkline.address.model import Address
from trunkline.address.schemes import Scheme
from trunkline.errors import AddressError

__all__ = ["parse_database"]


def parse_database(scheme: Scheme, rest: str, environ: Mapping[str, str]) -> Address:
    """Parse a database's address.

    `extra` is the parser's `fields`; AddressError holds Go's sentence.
    """
    # Every database's row has a function.
    assert scheme.read_dsn is not None
    try:
        dsn, found = scheme.read_dsn(rest, environ)
    except DsnError as error:
        text = str(error)
    else:
        return _address(scheme, dsn, found)
    raise AddressError(
        f"the {scheme.name} address is not valid ({text}): write it like {scheme.example}"
    )


def _address(scheme: Scheme, dsn: str, found: Dsn) -> Address:
    """The parser's fields as an address. Go's "" is None here, except for the user."""
    hosts = tuple(
        (host["host"], host["port"] or found.port) for host in found.fields.get("hosts", ())
    )
    path = found.fields.get("socket") or found.fields.get("file") or ""
    return Address(
        scheme.name,
        dsn,
        found.net,
        found.host,
        found.port,
        found.user,
        found.password or None,
        found.database or None,
        path=path,
        params=found.params,
        hosts=hosts,
        extra=found.fields,
    )

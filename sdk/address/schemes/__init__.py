"""The schemes, one row each: a file per protocol, whose rows say all that the other modules read of it.

A new built-in driver is a file here, named in `_FILES`, an extra in pyproject.toml, and a folder of drivers.
"""

from __future__ import annotations

from trunkline.address.installed import is_installed
from trunkline.address.nearest import nearest
from trunkline.address.schemes import (
    amqp,
    clickhouse,
    kafka,
    mqtt,
    mysql,
    nats,
    postgres,
    sockets,
    sqlite,
    websocket,
)
from trunkline.address.schemes.model import Param, Scheme
from trunkline.errors import UnknownScheme

__all__ = ["ALIASES", "SCHEMES", "Param", "Scheme", "find_scheme", "scheme_row"]

_FILES = (sockets, websocket, mqtt, nats, amqp, kafka, sqlite, mysql, postgres, clickhouse)

SCHEMES: dict[str, Scheme] = {row.name: row for file in _FILES for row in file.ROWS}
"""By name, in the order of the documents."""
ALIASES: dict[str, str] = {alias: row.name for row in SCHEMES.values() for alias in row.aliases}
"""Other name -> name."""
_MISTAKEN = {name: row.name for row in SCHEMES.values() for name in row.mistaken}


def find_scheme(name: str) -> Scheme:
    """The scheme of that name in any case: Trunkline's own, else one whose driver others bring.
    Raises `UnknownScheme` with the nearest one."""
    key = name.lower()
    row = SCHEMES.get(ALIASES.get(key, key))
    if row is not None:
        return row
    if is_installed(key):
        return scheme_row(key)
    near = _MISTAKEN.get(key) or nearest(key, [*SCHEMES, *ALIASES], 0.6)
    hint = f"did you mean '{near}'" if near else f"use one of {', '.join(SCHEMES)}"
    raise UnknownScheme(f"unknown scheme '{name[:20]}': {hint}")


def scheme_row(name: str) -> Scheme:
    """The row of a scheme that was found before, perhaps in another process: nothing is looked up."""
    return SCHEMES.get(name) or Scheme(name=name, family="other", example=f"{name}://host:port/path")

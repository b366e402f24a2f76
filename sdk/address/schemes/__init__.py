"""The schemes, one row each: a file per protocol, whose rows say all that the other modules read of it.

Each module of this package that has `ROWS` is such a file. They are found by looking into the package, so a
new built-in driver is a file here, an extra in pyproject.toml, and a folder of drivers: no list names it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module

from trunkline.address.installed import is_installed
from trunkline.address.nearest import nearest
from trunkline.address.schemes.model import FAMILIES, Param, Scheme
from trunkline.errors import UnknownScheme

__all__ = ["ALIASES", "SCHEMES", "Param", "Scheme", "find_scheme", "scheme_row"]


def _read_files() -> Iterator[Scheme]:
    """The rows of all modules of this package that have `ROWS`: by family, then by the name of the module."""
    rows: list[Scheme] = []
    for name in sorted(found.name for found in pkgutil.iter_modules(__path__)):
        rows += getattr(import_module(f"{__name__}.{name}"), "ROWS", ())
    return iter(sorted(rows, key=lambda row: FAMILIES.index(row.family)))


SCHEMES: dict[str, Scheme] = {row.name: row for row in _read_files()}
"""By name: sockets, WebSocket, message brokers, databases, as in the documents."""
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
    return SCHEMES.get(name) or Scheme(
        name=name, family="other", example=f"{name}://host:port/path"
    )

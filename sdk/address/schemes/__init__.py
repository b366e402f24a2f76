"""The schemes, a row each, in a file for each protocol. Other modules read every fact about a
scheme from its row.

A file of rows is a module of this package with `ROWS`, found by listing the package. A new built-in
driver is therefore a file here, an extra in pyproject.toml, and a folder of drivers; no list needs
a new entry.
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
    """The rows of every module with `ROWS`, sorted by family, then by the module's name."""
    rows: list[Scheme] = []
    for name in sorted(found.name for found in pkgutil.iter_modules(__path__)):
        rows += getattr(import_module(f"{__name__}.{name}"), "ROWS", ())
    return iter(sorted(rows, key=lambda row: FAMILIES.index(row.family)))


SCHEMES: dict[str, Scheme] = {row.name: row for row in _read_files()}
"""The rows by name: sockets, WebSocket, message brokers, databases, as in the documents."""
ALIASES: dict[str, str] = {alias: row.name for row in SCHEMES.values() for alias in row.aliases}
"""Main names by other names."""
_MISTAKEN = {name: row.name for row in SCHEMES.values() for name in row.mistaken}


def find_scheme(name: str) -> Scheme:
    """The row of the scheme `name`, in any case: a scheme of Trunkline, else of another
    distribution's driver.

    Raises `UnknownScheme` with the nearest name.
    """
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
    """The row of a known scheme, without a look at the installed drivers.

    Another process may have found the scheme. An unknown name gets a row of the family `other`.
    """
    return SCHEMES.get(name) or Scheme(
        name=name, family="other", example=f"{name}://host:port/path"
    )

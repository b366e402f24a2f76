"""Scheme -> driver. The class is imported by the worker that needs it, and only then its library.

Others add drivers with an entry point in the group `trunkline.drivers`: name the scheme, value
"module:Class". `trunkline.address` takes their schemes too. Trunkline's own come first.
"""

from __future__ import annotations

import contextlib
from importlib import import_module, metadata

from trunkline.actors.driver import Driver, ExecDriver, FatalError, StreamDriver
from trunkline.address.installed import GROUP
from trunkline.address.schemes import SCHEMES
from trunkline.errors import MissingLibrary, UnknownScheme

__all__ = ["DRIVERS", "driver_class", "preload"]

_ROWS = [(name, row) for row in SCHEMES.values() for name in (row.name, *row.aliases)]
DRIVERS: dict[str, str] = {name: row.driver for name, row in _ROWS}
EXTRAS: dict[str, str] = {name: row.extra for name, row in _ROWS if row.extra}
"""The extra that brings the library of a scheme that is not in the core."""


def driver_class(scheme: str) -> type[Driver]:
    """The driver of a scheme. UnknownScheme, MissingLibrary with what to install, or FatalError for what is
    registered as a driver and is none."""
    place = DRIVERS.get(scheme) or _from_entry_points(scheme)
    if place is None:
        raise UnknownScheme(
            f"this release has no driver for {scheme}://; `trunkline doctor` lists those it has"
        )
    module, _, name = place.partition(":")
    try:
        found: type[Driver] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(scheme)
        hint = f"pip install 'trunkline[{extra}]'" if extra else f"install the module {error.name}"
        raise MissingLibrary(
            f"{scheme}:// needs a library that is not installed ({error.name}): {hint}"
        ) from None
    if not (isinstance(found, type) and issubclass(found, (StreamDriver, ExecDriver))):
        raise FatalError(
            f"{place} is registered for {scheme}:// and is no StreamDriver or ExecDriver class"
        )
    return found


def preload(scheme: str) -> None:
    """Import a driver now, if it can be."""
    with contextlib.suppress(UnknownScheme, MissingLibrary, ImportError, AttributeError):
        driver_class(scheme)


def _from_entry_points(scheme: str) -> str | None:
    for entry in metadata.entry_points(group=GROUP):
        if entry.name.lower() == scheme:
            return f"{entry.module}:{entry.attr}"
    return None

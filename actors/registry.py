"""The driver class of each scheme. A driver and its library are imported when they are needed.

Other packages add drivers by an entry point in the group `trunkline.drivers`: the name is the
scheme, the value "module:Class". `trunkline.address` accepts these schemes too. For a scheme of
both, Trunkline's own driver is used.
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
"""The extra that installs the library of a scheme, for schemes whose library is not in the core."""


def driver_class(scheme: str) -> type[Driver]:
    """The driver class of a scheme.

    Raises UnknownScheme without a driver, MissingLibrary (says what to install) without the
    library, FatalError where the registered object is no driver class."""
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
    """Import the driver of a scheme ahead of time. Errors are ignored until the driver is
    needed."""
    with contextlib.suppress(UnknownScheme, MissingLibrary, ImportError, AttributeError):
        driver_class(scheme)


def _from_entry_points(scheme: str) -> str | None:
    for entry in metadata.entry_points(group=GROUP):
        if entry.name.lower() == scheme:
            return f"{entry.module}:{entry.attr}"
    return None

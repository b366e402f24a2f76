"""Schemes that other distributions bring: the entry-point group `trunkline.drivers`."""

from __future__ import annotations

__all__ = ["GROUP", "is_installed"]

GROUP = "trunkline.drivers"


def is_installed(name: str) -> bool:
    """Whether a distribution on this program's path registers a driver for the scheme `name` (lower case)."""
    # imported here, for it takes longer than this whole package, and Trunkline's own schemes never need it
    from importlib import metadata

    try:
        return any(entry.name.lower() == name for entry in metadata.entry_points(group=GROUP))
    except (
        Exception
    ):  # another package's broken metadata must not turn a misspelt scheme into a traceback
        return False

"""Schemes of other distributions: the entry-point group `trunkline.drivers`."""

from __future__ import annotations

__all__ = ["GROUP", "is_installed"]

GROUP = "trunkline.drivers"


def is_installed(name: str) -> bool:
    """Whether an installed distribution registers a driver for the scheme `name` (lower case)."""
    # Imported late: the import takes longer than this whole package, and Trunkline's own schemes
    # never need it.
    from importlib import metadata

    try:
        return any(entry.name.lower() == name for entry in metadata.entry_points(group=GROUP))
    except (
        Exception
        # Broken metadata of another package must not turn a misspelt scheme into a traceback.
    ):
        return False

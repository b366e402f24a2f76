"""Distributions as an installer leaves them: a folder on the path with modules and their metadata."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

__all__ = ["install"]


def install(
    folder: Path, name: str, drivers: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Register `drivers` (scheme: "module:Class") in the name of a distribution whose modules are in
    `folder`, for this process and for those it starts."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{scheme} = {place}" for scheme, place in drivers.items()]
    (info / "entry_points.txt").write_text("\n".join(["[trunkline.drivers]", *lines, ""]))
    if str(folder) not in sys.path:
        monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
        inherited = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (inherited, str(folder)))))

"""Programs for which places of the world are servers of the test: see `names/sitecustomize.py`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["named"]

_FOLDER = Path(__file__).with_name("names")


def named(places: Mapping[str, int]) -> dict[str, str]:
    """This process's environment, changed so that a program started with it finds `host:port` at that port of
    this machine; no other name exists for it."""
    paths = [str(_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "TRUNKLINE_TEST_NAMES": json.dumps(dict(places)),
    }

"""Running a strategy script as the original did: its globals, its life cycle, its log.

`run(path)` is what `trunkline run` calls. `StopError` is how a stop (Ctrl-C, SIGTERM) reaches the script.
"""

from __future__ import annotations

from trunkline.strategy.runner import run
from trunkline.strategy.stop import StopError

__all__ = ["StopError", "run"]

"""Running a strategy script as the platform FMZ does: the script's globals, life cycle and log.

`trunkline run` calls `run(path)`. A stop (Ctrl-C, SIGTERM) reaches the script as `StopError`.
"""

from __future__ import annotations

from trunkline.strategy.runner import run
from trunkline.strategy.stop import StopError

__all__ = ["StopError", "run"]

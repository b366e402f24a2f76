"""Tools for tests of drivers, and of programs that use Trunkline.

`Exchange` is a local WebSocket exchange. `FaultProxy` makes outages. `contracts` holds the tests
that every driver must pass. `until` and `Background` wait with a timeout. Every pytest has the
fixtures `trunkline_ws` and `trunkline_fault_proxy` (`plugin`). Names are imported at their first
use: a pytest without Trunkline's tools imports none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trunkline.testing.exchange import Answer, Client, Exchange
    from trunkline.testing.faultproxy import FaultProxy, Way
    from trunkline.testing.waiting import Background, until

__all__ = ["Answer", "Background", "Client", "Exchange", "FaultProxy", "Way", "until"]

_HOME = {
    "Answer": "trunkline.testing.exchange",
    "Background": "trunkline.testing.waiting",
    "Client": "trunkline.testing.exchange",
    "Exchange": "trunkline.testing.exchange",
    "FaultProxy": "trunkline.testing.faultproxy",
    "Way": "trunkline.testing.faultproxy",
    "until": "trunkline.testing.waiting",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'trunkline.testing' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

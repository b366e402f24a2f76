"""Tools for tests of programs that use Trunkline, and of drivers.

`Exchange` is a local WebSocket exchange, `FaultProxy` makes outages, `contracts` holds the tests that every
driver must pass, `until` and `Background` wait with an end. The fixtures `trunkline_ws` and
`trunkline_fault_proxy` are there for every pytest (`plugin`). The names are loaded when first used, so that a
pytest which uses none of them loads none.
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

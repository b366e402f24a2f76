"""The plugin of pytest that comes with Trunkline (entry point `pytest11`): fixtures for users' own tests.

Each pytest of an environment in which Trunkline is installed loads this module, also where no test uses
Trunkline. So it imports nothing but pytest; the fixtures import what they need.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from trunkline.testing.exchange import Exchange
    from trunkline.testing.faultproxy import FaultProxy

# A failed assertion of a contract is to show its values, as one in a test does.
pytest.register_assert_rewrite("trunkline.testing.contracts")

__all__ = ["MakeFaultProxy", "trunkline_fault_proxy", "trunkline_ws"]


class MakeFaultProxy(Protocol):
    """The type of the fixture `trunkline_fault_proxy`."""

    def __call__(
        self, target: int | tuple[str, int] | Path, *, at: Path | None = None, seed: int = 0
    ) -> FaultProxy: ...


@pytest.fixture
def trunkline_ws() -> Iterator[Exchange]:
    """A running `trunkline.testing.Exchange` (its address is `url`), stopped at the end of the test."""
    from trunkline.testing.exchange import Exchange

    with Exchange() as exchange:
        yield exchange


@pytest.fixture
def trunkline_fault_proxy() -> Iterator[MakeFaultProxy]:
    """Makes a `trunkline.testing.FaultProxy` in front of a port; each one is stopped at the end of the test.

    proxy = trunkline_fault_proxy(trunkline_ws.port)
    feed = connect(f"ws://{proxy.address}")
    """
    from trunkline.testing.faultproxy import FaultProxy

    with ExitStack() as proxies:

        def make(
            target: int | tuple[str, int] | Path, *, at: Path | None = None, seed: int = 0
        ) -> FaultProxy:
            return proxies.enter_context(FaultProxy(target, at=at, seed=seed))

        yield make

"""Trunkline's plugin of pytest (entry point `pytest11`): fixtures for users' own tests.

Every pytest of an environment with Trunkline loads this module, even without a test of Trunkline.
The module therefore imports only pytest; each fixture imports the tools it needs.
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

# Lets a contract's failed assertion show its values, as an assertion in a test file does.
pytest.register_assert_rewrite("trunkline.testing.contracts")

__all__ = ["MakeFaultProxy", "trunkline_fault_proxy", "trunkline_ws"]


class MakeFaultProxy(Protocol):
    """The type of the fixture `trunkline_fault_proxy`."""

    def __call__(
        self, target: int | tuple[str, int] | Path, *, at: Path | None = None, seed: int = 0
    ) -> FaultProxy: ...


@pytest.fixture
def trunkline_ws() -> Iterator[Exchange]:
    """A running `trunkline.testing.Exchange`, stopped at the end of the test; its address is
    `url`."""
    from trunkline.testing.exchange import Exchange

    with Exchange() as exchange:
        yield exchange


@pytest.fixture
def trunkline_fault_proxy() -> Iterator[MakeFaultProxy]:
    """Makes `trunkline.testing.FaultProxy` objects, which are stopped at the end of the test.

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

"""The WebSocket driver with each engine on each event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop

from tests.support import loops
from tests.support.recorder import Recorder
from trunkline.actors.drivers.ws.driver import WsDriver
from trunkline.address import parse_address
from trunkline.deadline import Deadline

__all__ = ["Engine", "on_every_engine"]


@dataclass(frozen=True)
class Engine:
    """One engine on one loop."""

    name: str
    loop: str

    def run(self, body: Coroutine[Any, Any, None]) -> None:
        (uvloop.run if self.loop == "uvloop" else asyncio.run)(body)

    def driver(self, address: str, sink: Recorder, **options: object) -> WsDriver:
        return WsDriver(parse_address(address, options), sink, self.name)

    async def dial(
        self, address: str, seconds: float = 10.0, **options: object
    ) -> tuple[Recorder, WsDriver]:
        """A driver after a successful open, and its sink."""
        sink = Recorder()
        driver = self.driver(address, sink, **options)
        await driver.open(Deadline(seconds))
        return sink, driver


_ALL = [
    Engine(name, loop) for name in ("picows", "websocket-client") for loop in ("uvloop", "asyncio")
]

assert loops, "imported for its first loop"

on_every_engine = pytest.mark.parametrize("ws", _ALL, ids=lambda ws: f"{ws.name}-{ws.loop}")

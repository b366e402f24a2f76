"""An owner of a reader that keeps what it was told, and the loop's side of it without a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from trunkline.actors.driver import Delivery
from trunkline.actors.drivers.kafka.loop_side import LoopSide

__all__ = ["KeepingOwner", "at_once"]


class KeepingOwner:
    """See `loop_side.Owner`."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.losses: list[BaseException] = []
        self.warnings: list[str] = []
        self.drops = 0

    def arrived(self, batch: Sequence[Delivery]) -> None:
        self.deliveries += batch

    def went(self, reason: BaseException) -> None:
        self.losses.append(reason)

    def passed_over(self, count: int) -> None:
        self.drops += count

    def say(self, text: str) -> None:
        self.warnings.append(text)


class _AtOnce(LoopSide):
    """Calls in the same thread, so that a test sees the outcome without a running loop."""

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        function(*arguments)


@contextmanager
def at_once() -> Iterator[tuple[Any, KeepingOwner]]:
    """A loop's side with an owner, whose calls are made at once."""
    loop = asyncio.new_event_loop()
    try:
        loop_side, owner = _AtOnce(loop), KeepingOwner()
        loop_side.owner = owner
        yield loop_side, owner
    finally:
        loop.close()

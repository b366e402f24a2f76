"""A spawner without processes, for tests of the router: it keeps the orders and tells what a test scripts."""

from __future__ import annotations

import os
import queue
from typing import Any, NamedTuple

from trunkline.broker.spawner import SpawnerEvent

__all__ = ["Order", "ScriptedSpawner"]

ORDER_S = 20.0


class Order(NamedTuple):
    """A worker that the router has asked for."""

    key: str
    spec: dict[str, Any]


class ScriptedSpawner:
    """A `Spawner`. The router's thread gives orders; another thread may take them and tell events."""

    def __init__(self) -> None:
        self.pid = 0
        self.closed = False
        self.restarts = 0
        self._orders: queue.Queue[Order] = queue.Queue()
        self._events: queue.Queue[SpawnerEvent | None] = queue.Queue()
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)

    # for the test

    def next_order(self) -> Order:
        """The next worker that was asked for; queue.Empty when none is within 20 s."""
        return self._orders.get(timeout=ORDER_S)

    def has_orders(self) -> bool:
        """Whether orders were given that `next_order` has not returned."""
        return not self._orders.empty()

    def tell(self, event: SpawnerEvent | None) -> None:
        """Let `events` return this event; None: the spawner is gone."""
        self._events.put(event)
        os.write(self._write, b".")

    # for the router

    def fileno(self) -> int:
        return self._read

    def start(self, key: str, spec: dict[str, Any]) -> None:
        self._orders.put(Order(key, spec))

    def events(self) -> list[SpawnerEvent] | None:
        told: list[SpawnerEvent] = []
        for _ in os.read(self._read, 1):
            event = self._events.get_nowait()
            if event is None:
                return None
            told.append(event)
        return told

    def restart(self) -> None:
        self.restarts += 1

    def has_ended(self, pid: int) -> None:
        raise AssertionError("a process of others was taken for a child")

    def kill(self) -> None:
        self.tell(None)

    def close(self, *, stays: bool = False) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._read)
            os.close(self._write)

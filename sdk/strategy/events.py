"""`EventLoop`: wait until one of the strategy's connections has something to read.

As in the original an event is a notice alone: the data must still be read, and a connection is announced once
until it was read from.
"""

from __future__ import annotations

import select
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from trunkline.strategy.record import Record

__all__ = ["EventLoop"]

_SLICE_S = 0.02
"""How often connections are looked at that say nothing by themselves: those that several holders read."""


_LOOK_S = 0.25
"""How often the others are looked at: one may be closed, or get another descriptor, meanwhile."""


class Watched(Protocol):
    """What is needed of a connection."""

    def watch(self) -> tuple[bool, int | None, object]:
        """Whether there is something to read, the descriptor that tells of more (None: there is none), and
        what changes when it is read from."""


class EventLoop:
    """The global `EventLoop(timeout)`, and the connections that it watches."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._watched: list[weakref.ref[Watched] | None] = []
        self._announced: weakref.WeakKeyDictionary[Any, object] = weakref.WeakKeyDictionary()
        self._sequence = 0

    def add(self, connection: Any) -> None:
        """A connection that the strategy has dialled. A database's counts, and is never announced."""
        stream = hasattr(connection, "watch") and connection.stats().kind == "stream"
        self._watched.append(weakref.ref(connection) if stream else None)

    def __call__(self, timeout: float | None = None) -> Record | None:
        """The next event: `Seq` (counts events), `Event` ("dial"), `Index` (which connection, in the order of
        the dials), `ThreadId` (0) and `Nano` (when); None when there was none in time.

        `timeout`: milliseconds; None or 0 waits until there is one, less than 0 does not wait.
        """
        until = None if not timeout else self._clock() + max(0.0, timeout / 1000)
        while True:
            found, descriptors, silent = self._look_once()
            if found is not None:
                return found
            left = _LOOK_S if until is None else min(_LOOK_S, until - self._clock())
            if left <= 0:
                return None
            _wait_readable(descriptors, min(left, _SLICE_S) if silent else left)

    def _look_once(self) -> tuple[Record | None, list[int], bool]:
        descriptors: list[int] = []
        silent = False
        for index, reference in enumerate(self._watched):
            connection = None if reference is None else reference()
            if connection is None:
                continue
            ready, descriptor, mark = connection.watch()
            if ready and self._announced.get(connection) != mark:
                self._announced[connection] = mark
                self._sequence += 1
                event = Record(
                    Seq=self._sequence, Event="dial", ThreadId=0, Index=index, Nano=time.time_ns()
                )
                return event, [], False
            if not ready and descriptor is not None and descriptor >= 0:
                descriptors.append(descriptor)
            else:
                silent = True
        return None, descriptors, silent


def _wait_readable(descriptors: list[int], seconds: float) -> None:
    """Until one of them is readable or hung up, or the time is over."""
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    poller.poll(max(1, int(seconds * 1000)))

"""`EventLoop`: wait until a connection of the strategy has something to read.

As on FMZ, an event is only a notice: the strategy must still read the data. A connection is
announced again only after a read.
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
"""Seconds between two looks at silent connections.

A connection that several holders read has no descriptor.
"""


_LOOK_S = 0.25
"""Seconds between two looks at all connections.

A connection may be closed, or get another descriptor, meanwhile.
"""


class Watched(Protocol):
    """The part of a connection that `EventLoop` needs."""

    def watch(self) -> tuple[bool, int | None, object]:
        """The state of reading: is data ready, the file descriptor that becomes readable, and a
        mark.

        The descriptor is None for a connection without a descriptor. The mark changes with every
        read.
        """


class EventLoop:
    """The global `EventLoop(timeout)`, with the connections that it watches."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._watched: list[weakref.ref[Watched] | None] = []
        self._announced: weakref.WeakKeyDictionary[Any, object] = weakref.WeakKeyDictionary()
        self._sequence = 0

    def add(self, connection: Any) -> None:
        """Watch a connection that the strategy has dialled.

        A database's connection takes a number, and is never announced.
        """
        stream = hasattr(connection, "watch") and connection.stats().kind == "stream"
        self._watched.append(weakref.ref(connection) if stream else None)

    def __call__(self, timeout: float | None = None) -> Record | None:
        """Return the next event, or None after the timeout.

        `timeout`: milliseconds; None or 0: wait without a limit; negative: do not wait.

        Fields of the event: `Seq` (the number of the event), `Event` ("dial"), `Index` (the
        connection's number in the order of the dials), `ThreadId` (0) and `Nano` (the time in
        nanoseconds).
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
        """Look at every connection: the event if any, the descriptors to wait for, and whether to
        look again soon."""
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
    """Wait until a descriptor is readable or hung up, for at most `seconds`."""
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    poller.poll(max(1, int(seconds * 1000)))

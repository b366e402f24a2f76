"""One reading of a whole feed, timed the same way whoever reads: from the start of a live feed, or else from
the call that connects (what comes before it returns is read in advance), to the last message. With Kafka,
where joining a group takes longer than reading, from the moment the connection is there.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

import trunkline
from benchmarks.feeds import check
from trunkline import Message

__all__ = ["Reading", "Tally", "median_reading", "nothing", "through_dial"]

_WAIT_MS = 30_000


@dataclass(frozen=True)
class Reading:
    """What one side did."""

    rate: float
    """Messages a second."""
    cpu_us: float
    """Of this process, per message."""
    worker_us: float = 0.0
    """Of the worker, per message."""


def median_reading(readings: Sequence[Reading]) -> Reading:
    """The median of each figure by itself."""
    return Reading(
        *(statistics.median(getattr(r, name) for r in readings) for name in ("rate", "cpu_us", "worker_us"))
    )


def nothing() -> None:
    """What starts a feed that the broker has already."""


class Tally:
    """Where a bare client's callback puts the messages; `done` is called with the last one. Its clock starts
    when it is made."""

    def __init__(self, count: int, done: Callable[[], object]) -> None:
        self.got: list[bytes] = []
        self._count, self._done = count, done
        gc.collect()
        self.start()

    def start(self) -> None:
        """Start the clock anew: a live feed begins now."""
        self._from = self._to = time.perf_counter(), time.process_time()

    def add(self, message: bytes) -> None:
        self.got.append(message)
        if len(self.got) == self._count:
            self._to = time.perf_counter(), time.process_time()
            self._done()

    def reading(self) -> Reading:
        """The result; AssertionError when not all came, once, in order."""
        check(self.got, self._count)
        wall, cpu = (to - since for to, since in zip(self._to, self._from, strict=True))
        return Reading(self._count / wall, cpu / self._count * 1e6)


def through_dial(
    url: str,
    count: int,
    go: Callable[[], None] | None = None,
    *,
    envelopes: bool = False,
    connected: bool = False,
    **options: Any,
) -> Reading:
    """Read the whole feed through Dial. `envelopes`: with `receive` instead of `read`; `connected`: the clock
    starts when the connection is there."""
    gc.collect()
    got: list[str | bytes] = []
    clocks = time.perf_counter, time.process_time
    since = [clock() for clock in clocks]
    with trunkline.connect(url, **options) as connection:
        if connected or go is not None:
            since = [clock() for clock in clocks]
        if go is not None:
            go()
        _take(_receiving(connection) if envelopes else connection.read, got, count)
        wall, cpu = (clock() - start for clock, start in zip(clocks, since, strict=True))
        stats = connection.stats()
        used = sum(psutil.Process(stats.pid).cpu_times()[:2])  # user and system
    if stats.dropped:
        raise AssertionError(f"{stats.dropped} messages were dropped")
    check(got, count)
    return Reading(count / wall, cpu / count * 1e6, used / count * 1e6)


def _receiving(connection: trunkline.Connection) -> Callable[[float], str | bytes | None]:
    receive = connection.receive

    def take(timeout_ms: float) -> str | bytes | None:
        message = receive(timeout_ms)
        return message.data if isinstance(message, Message) else message

    return take


def _take(take: Callable[[float], str | bytes | None], got: list[str | bytes], count: int) -> None:
    keep = got.append
    for _ in range(count):
        message = take(_WAIT_MS)
        if not message:
            raise AssertionError(f"nothing came for {_WAIT_MS / 1000:.0f} s after {len(got)} messages")
        keep(message)

"""One reading of a whole feed, timed the same way whoever reads: from its first tenth to its last one.

In between, what lies read in advance in a client's or a worker's buffer is about the same at both ends.
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
    """Where a bare client's callback puts the messages; `done` is called with the last one."""

    def __init__(self, count: int, done: Callable[[], object]) -> None:
        gc.collect()
        self.got: list[bytes] = []
        self._count, self._done = count, done
        self._first, self._last = count // 10, count - count // 10
        self._from = self._to = (0.0, 0.0)

    def add(self, message: bytes) -> None:
        self.got.append(message)
        have = len(self.got)
        if have == self._first:
            self._from = time.perf_counter(), time.process_time()
        elif have == self._last:
            self._to = time.perf_counter(), time.process_time()
        elif have == self._count:
            self._done()

    def reading(self) -> Reading:
        """The result; AssertionError when not all came, once, in order."""
        check(self.got, self._count)
        wall, cpu = (to - since for to, since in zip(self._to, self._from, strict=True))
        counted = self._last - self._first
        return Reading(counted / wall, cpu / counted * 1e6)


def through_dial(
    url: str, count: int, go: Callable[[], None] | None = None, *, envelopes: bool = False, **options: Any
) -> Reading:
    """Read the whole feed through Dial; `envelopes`: with `receive` instead of `read`."""
    gc.collect()
    got: list[str | bytes] = []
    with trunkline.connect(url, **options) as connection:
        worker = psutil.Process(connection.stats().pid)
        take = _receiving(connection) if envelopes else connection.read
        if go is not None:
            go()
        edge = count // 10
        counted = count - 2 * edge
        _take(take, got, edge)
        before = _used(worker)
        start, cpu = time.perf_counter(), time.process_time()
        _take(take, got, counted)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        used = _used(worker) - before
        _take(take, got, edge)
        stats = connection.stats()
    if stats.dropped:
        raise AssertionError(f"{stats.dropped} messages were dropped")
    check(got, count)
    return Reading(counted / wall, cpu / counted * 1e6, used / counted * 1e6)


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


def _used(process: psutil.Process) -> float:
    """Seconds of processor time so far."""
    times = process.cpu_times()
    return float(times.user + times.system)

"""Reading a whole feed, timed in the same way for every reader.

The time begins when the connection is open, and ends with the last message. Messages that a worker
took in before the beginning do not count as read.
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

__all__ = ["Reading", "Tally", "median_reading", "through_dial"]

_WAIT_MS = 30_000


@dataclass(frozen=True)
class Reading:
    """The figures of a side."""

    rate: float
    """Messages a second."""
    cpu_us: float
    """CPU time of this process, in microseconds per message."""
    worker_us: float = 0.0
    """CPU time of the worker, in microseconds per message."""


def median_reading(readings: Sequence[Reading]) -> Reading:
    """The median of every figure, each figure by itself."""
    return Reading(
        *(
            statistics.median(getattr(r, name) for r in readings)
            for name in ("rate", "cpu_us", "worker_us")
        )
    )


class Tally:
    """Collects the messages of a bare client's callback, and calls `done` with the last message.

    The clock starts with the first message, or with the live feed.
    """

    def __init__(self, count: int, done: Callable[[], object]) -> None:
        self.got: list[bytes] = []
        self._count, self._done = count, done
        self._from: tuple[float, float] | None = None
        self._to = (0.0, 0.0)
        gc.collect()

    def start(self) -> None:
        """Start the clock: a live feed begins now."""
        self._from = time.perf_counter(), time.process_time()

    def add(self, message: bytes) -> None:
        if self._from is None:
            self.start()
        self.got.append(message)
        if len(self.got) == self._count:
            self._to = time.perf_counter(), time.process_time()
            self._done()

    def reading(self) -> Reading:
        """The figures; AssertionError unless all messages came, exactly once and in order."""
        check(self.got, self._count)
        assert self._from is not None
        wall, cpu = (to - since for to, since in zip(self._to, self._from, strict=True))
        return Reading(self._count / wall, cpu / self._count * 1e6)


def through_dial(
    url: str,
    count: int,
    go: Callable[[], None] | None = None,
    *,
    envelopes: bool = False,
    **options: Any,
) -> Reading:
    """Read the whole feed through Dial, with `receive` (`envelopes`) or with `read`.

    `go` starts a live feed. AssertionError for lost or doubled messages, and when most messages
    came too early.
    """
    got: list[str | bytes] = []
    gc.collect()
    with trunkline.connect(url, **options) as connection:
        before = connection.stats()
        worker = psutil.Process(before.pid)
        # User and system time.
        used = sum(worker.cpu_times()[:2])
        wall, cpu = time.perf_counter(), time.process_time()
        if go is not None:
            go()
        _take(_receiving(connection) if envelopes else connection.read, got, count)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        used = sum(worker.cpu_times()[:2]) - used
        dropped = connection.stats().dropped
    if dropped:
        raise AssertionError(f"{dropped} messages were dropped")
    check(got, count)
    counted = count - before.messages_in
    if counted < count / 2:
        raise AssertionError(
            f"{before.messages_in} of {count} messages were there before reading began"
        )
    return Reading(counted / wall, cpu / count * 1e6, used / counted * 1e6)


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
            raise AssertionError(
                f"nothing came for {_WAIT_MS / 1000:.0f} s after {len(got)} messages"
            )
        keep(message)

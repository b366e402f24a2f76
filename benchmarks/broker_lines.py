"""Comparing Dial with bare clients of message brokers: the timed parts, and the lines of the
table."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import trunkline
from benchmarks import feeds
from benchmarks.measure import Line, alternating, median_of, p50_us
from benchmarks.reading import Reading, median_reading
from tests.servers.base import Server
from tests.servers.run import Run
from trunkline.deadline import Deadline

__all__ = [
    "THREADS",
    "from_threads",
    "reading_lines",
    "started",
    "until",
    "writing_lines",
]

READ_GOAL = 0.8
"""Reading through Dial must reach this part of a bare client's rate."""
WRITE_GOAL, WRITE_ABOVE_US = 1.5, 250
"""A write through Dial may take so many times the bare client's time, plus so many microseconds."""
THREADS = 8
_FILL_S = 60.0
"""Seconds that a server has to take a feed."""
_LOOK_S = 0.02

S = TypeVar("S", bound=Server)


@contextlib.contextmanager
def started(run: Run, kind: type[S], **settings: object) -> Iterator[S]:
    """A private server inside the block; Unavailable where the server is not installed."""
    kind.available()
    with run.private(kind, **settings) as server:
        yield server


def until(ready: Callable[[], bool], what: str) -> None:
    """Wait until `ready()` is true; AssertionError after `_FILL_S` seconds."""
    deadline = Deadline(_FILL_S)
    while not ready():
        if deadline.expired():
            raise AssertionError(f"{what} did not fill in {_FILL_S:.0f} s")
        time.sleep(_LOOK_S)


def reading_lines(
    what: str, rounds: int, peers: dict[str, Callable[[], Reading]], dial: Callable[[bool], Reading]
) -> Iterator[Line]:
    """The lines of reading.

    `peers`: bare clients by name, first the client of the documentation.
    `dial`: reads through Dial; with `receive` if its argument is True, else with `read`.
    """
    sides = [*peers.values(), lambda: dial(False), lambda: dial(True)]
    *bare, ours, stamped = map(median_reading, alternating(rounds, *sides))
    for name, theirs in zip(peers, bare, strict=True):
        ratio = ours.rate / theirs.rate
        yield Line(
            f"{what} through Dial / {name}",
            f"{ratio:.2f}x ({_k(ours.rate)} against {_k(theirs.rate)})",
            f">= {READ_GOAL}x",
            ratio >= READ_GOAL,
        )
    yield Line(
        f"{what}, CPU per message: strategy, worker; bare",
        f"{ours.cpu_us:.1f}, {ours.worker_us:.1f}; {', '.join(f'{theirs.cpu_us:.1f}' for theirs in bare)} us",
        "",
        None,
    )
    yield Line(
        f"{what}, receive() / read()",
        f"{stamped.rate / ours.rate:.2f}x ({_k(stamped.rate)}; {stamped.cpu_us:.1f} us in the strategy)",
        "",
        None,
    )


def _k(rate: float) -> str:
    return f"{rate / 1e3:.1f} k/s" if rate < 99_950 else f"{rate / 1e3:.0f} k/s"


def writing_lines(
    what: str,
    quick: bool,
    connection: trunkline.Connection,
    bare_p50_us: Callable[[int], float],
    bare_rate: Callable[[int], float],
    how: str,
) -> Iterator[Line]:
    """The lines of writing.

    `bare_p50_us(n)`: the median time of n bare writes, one after the other, in microseconds.
    `bare_rate(n)`: messages a second of n bare writes; `how` describes them.
    """
    data = feeds.payload(0)

    def write() -> None:
        if connection.write(data) != len(data):
            raise AssertionError("a write through Dial was not confirmed")

    count, rounds = (200, 1) if quick else (1_000, 5)
    theirs, ours = median_of(rounds, lambda: bare_p50_us(count), lambda: p50_us(write, count))
    limit = WRITE_GOAL * theirs + WRITE_ABOVE_US
    yield Line(
        f"{what}, p50 through Dial against bare",
        f"{ours:.0f} against {theirs:.0f} us ({ours / theirs:.2f}x)",
        f"<= {WRITE_GOAL}x + {WRITE_ABOVE_US} us = {limit:.0f} us",
        ours <= limit,
    )
    many, rounds = (800, 1) if quick else (4_000, 3)
    rate, *rates = median_of(
        rounds,
        lambda: bare_rate(many),
        lambda: from_threads(write, many, 1),
        lambda: from_threads(write, many, THREADS),
    )
    yield Line(
        f"{what}, messages a second through Dial",
        f"{_k(rates[0])} from one thread, {_k(rates[1])} from {THREADS}; bare {how} {_k(rate)}",
        "",
        None,
    )


def from_threads(write: Callable[[], object], count: int, threads: int) -> float:
    """Messages a second of several threads. Every thread waits for its own confirmations."""
    failed: list[BaseException] = []

    def some() -> None:
        try:
            for _ in range(count // threads):
                write()
        except BaseException as error:
            failed.append(error)

    running = [threading.Thread(target=some) for _ in range(threads)]
    start = time.perf_counter()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if failed:
        raise failed[0]
    return count // threads * threads / (time.perf_counter() - start)

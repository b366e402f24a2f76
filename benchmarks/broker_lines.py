"""Comparing Dial with bare clients: what is timed, and the lines of the table."""

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
WRITE_GOAL, WRITE_ABOVE_US = 1.5, 250
THREADS = 8
_FILL_S = 60.0
_LOOK_S = 0.02

S = TypeVar("S", bound=Server)


@contextlib.contextmanager
def started(run: Run, kind: type[S], **settings: object) -> Iterator[S]:
    """A private server; Unavailable where there is none."""
    kind.available()
    with run.private(kind, **settings) as server:
        yield server


def until(ready: Callable[[], bool], what: str) -> None:
    """Wait; AssertionError when it takes too long."""
    deadline = Deadline(_FILL_S)
    while not ready():
        if deadline.expired():
            raise AssertionError(f"{what} did not fill in {_FILL_S:.0f} s")
        time.sleep(_LOOK_S)


def reading_lines(
    what: str, rounds: int, peers: dict[str, Callable[[], Reading]], dial: Callable[[bool], Reading]
) -> Iterator[Line]:
    """`peers` are bare clients, the one of the documentation first; `dial` reads with `receive` when told
    True, else with `read`."""
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
    """`bare_p50_us(n)`: of n writes, one after the other; `bare_rate(n)`: messages a second of n, as `how`
    says."""
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
    """Messages a second of several threads, each of which waits for its own confirmations."""
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

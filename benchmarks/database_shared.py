"""Several processes that execute the same statement repeatedly, all beginning at the same
moment."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["PROCESSES", "Work", "middle", "shared"]

PROCESSES = 8
_BEGIN_S = 60.0
"""Seconds that the processes have to start."""
_END_S = 900.0
"""Seconds that the processes have to end."""

Statement = Callable[[int, int], object]
"""Executes a statement. Arguments: the number of the process, the number of the statement."""


@dataclass(frozen=True)
class Work:
    """The work of all processes together."""

    seconds: float
    """From the first statement of any process to the last."""
    done: int
    failed: int
    slowest_s: float
    """The longest time of a statement."""
    why: str = ""
    """The first error."""

    @property
    def rate(self) -> float:
        """Successful statements a second."""
        return self.done / self.seconds

    @property
    def text(self) -> str:
        """The figures, for the table."""
        failed = f", {self.failed:,} failed: {self.why}" if self.failed else ""
        return f"{self.rate:,.0f}/s, slowest {self.slowest_s * 1e3:,.0f} ms{failed}"


def middle(works: Sequence[Work]) -> Work:
    """The median of an odd number of rounds, by rate, with the most failures of any round."""
    found = sorted(works, key=lambda work: work.rate)[len(works) // 2]
    worst = max(works, key=lambda work: work.failed)
    return Work(found.seconds, found.done, worst.failed, max(w.slowest_s for w in works), worst.why)


def shared(begin: Callable[..., Statement], given: tuple[Any, ...], count: int) -> Work:
    """Run PROCESSES processes.

    Each makes its statement by `begin(*given)` and executes it `count` times.
    """
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(PROCESSES), context.Queue()
    processes = [
        context.Process(
            target=_member, args=(begin, given, number, count, barrier, results), daemon=True
        )
        for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    try:
        found = [results.get(timeout=_END_S) for _ in processes]
    finally:
        for process in processes:
            process.join(5)
            process.kill()
            process.join()
    broken = [each for each in found if isinstance(each, str)]
    if broken:
        raise AssertionError(broken[0])
    starts, ends, done, failed, slowest, why = zip(*found, strict=True)
    first_why = next((text for text in why if text), "")
    return Work(max(ends) - min(starts), sum(done), sum(failed), max(slowest), first_why)


def _member(
    begin: Callable[..., Statement],
    given: tuple[Any, ...],
    number: int,
    count: int,
    barrier: Any,
    results: Any,
) -> None:
    """The work of a process: it begins when all processes are ready.

    A failure ends the wait of the others.
    """
    try:
        statement = begin(*given)
        barrier.wait(_BEGIN_S)
        results.put(_carry_out(statement, number, count))
    except Exception as error:
        results.put(f"{type(error).__name__}: {error}")
        barrier.abort()


def _carry_out(
    statement: Statement, number: int, count: int
) -> tuple[float, float, int, int, float, str]:
    """Execute the statements; returns begin, end, successes, failures, the longest time and the
    first error."""
    # The monotonic clock is the same in all processes.
    clock = time.monotonic
    failed, slowest, why = 0, 0.0, ""
    first = before = clock()
    for each in range(count):
        try:
            statement(number, each)
        except Exception as error:
            failed, why = failed + 1, why or str(error)
        now = clock()
        slowest, before = max(slowest, now - before), now
    return first, before, count - failed, failed, slowest, why

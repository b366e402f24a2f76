"""The common parts of all measurements: a line of the table, and medians over alternating
rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

__all__ = ["SIZE", "Line", "alternating", "median_of", "p50_us", "pss_mb"]

SIZE = 200
"""The size of a message in bytes."""

T = TypeVar("T")


@dataclass(frozen=True)
class Line:
    """A result. `goal`: the project's own goal; `met`: whether the goal was reached, None without a
    goal."""

    what: str
    figure: str
    goal: str
    met: bool | None


def alternating(rounds: int, *sides: Callable[[], T]) -> list[list[T]]:
    """The results of every side, over alternating rounds."""
    results: list[list[T]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, found in zip(sides, results, strict=True):
            found.append(side())
    return results


def median_of(rounds: int, *sides: Callable[[], float]) -> list[float]:
    """The median of every side over alternating rounds."""
    return [statistics.median(found) for found in alternating(rounds, *sides)]


def p50_us(call: Callable[[], object], count: int) -> float:
    """The median duration of a call in microseconds."""
    clock = time.perf_counter
    times = []
    for _ in range(count):
        start = clock()
        call()
        times.append(clock() - start)
    return statistics.median(times) * 1e6


def pss_mb(pid: int) -> float:
    """The proportional memory (PSS) of a process in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no Pss for {pid}")

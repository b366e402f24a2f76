"""Comparing Dial with bare database drivers: the timed parts, and the lines of the table."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil

import trunkline
from benchmarks.database import COLUMNS, Database
from benchmarks.database_shared import PROCESSES, middle, shared
from benchmarks.measure import Line, alternating, median_of, p50_us, pss_mb
from benchmarks.reading import Reading, median_reading
from trunkline.proxy.rows import Rows

__all__ = [
    "bulk_lines",
    "many_lines",
    "memory_lines",
    "one_row_lines",
    "shared_insert_lines",
    "shared_lines",
]

ABOVE_US = 250
"""The most microseconds that `exec` may take above the bare driver."""
READ_GOAL = 0.5
"""Reading through Dial must reach this part of the bare driver's rate."""
WRITE_GOAL = 0.8
"""Writing through Dial must reach this part of the bare driver's rate."""
MEMORY_MB = 32
"""The most MB by which a million rows may grow a process on their way.

As lists in Python they take 400.
"""
MANY = 100_000
_COPIES = 10
_LIMIT_MS = 120_000
"""The limit of statements that take a second or two: a measurement that hangs must fail."""
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM"


def _k(rate: float) -> str:
    return f"{rate / 1e3:,.0f} k/s"


@contextlib.contextmanager
def _both(database: Database) -> Iterator[tuple[Any, trunkline.Connection]]:
    """A bare connection, and a working connection through Dial."""
    with (
        contextlib.closing(database.connect()) as bare,
        trunkline.connect(database.address) as ours,
    ):
        yield bare, ours


def _filled(database: Database, bare: Any, table: str, count: int) -> None:
    database.fresh(bare, table)
    database.insert_bare(bare, table, database.rows(count))


def one_row_lines(database: Database, quick: bool) -> Iterator[Line]:
    """Reading a row by its key, with a bound value."""
    count, rounds = (300, 1) if quick else (2_000, 5)
    with _both(database) as (bare, ours):
        _filled(database, bare, "one", 100)
        sql = f"{_SELECT} one WHERE n ="
        theirs = f"{sql} {database.place}"
        expected = database.rows(100)[42]

        def through_dial() -> None:
            ours.exec(f"{sql} ?", 42)

        def directly() -> None:
            database.fetch_bare(bare, theirs, database.bound(42))

        _same(ours.exec(f"{sql} ?", 42), [expected])
        bare_us, dial_us = median_of(
            rounds, lambda: p50_us(directly, count), lambda: p50_us(through_dial, count)
        )
    above = dial_us - bare_us
    yield Line(
        f"{database.scheme}: a row by its key, exec above {database.client}, p50",
        f"+{above:,.0f} us ({dial_us:,.0f} against {bare_us:,.0f} us)",
        f"<= {ABOVE_US} us",
        above <= ABOVE_US,
    )


def _rows(connection: trunkline.Connection, sql: str) -> Rows:
    rows = connection.query(sql, timeout=_LIMIT_MS)
    assert rows is not None
    return rows


def _same(result: dict[str, Any] | None, rows: Sequence[tuple[Any, ...]]) -> None:
    """AssertionError unless the result has exactly these rows."""
    assert result is not None
    if [tuple(row) for row in result["values"]] != list(rows):
        raise AssertionError(
            f"other rows came than were stored: {result['values'][:1]!r} for {rows[0]!r}"
        )


def _timed(count: int, work: Callable[[], object], worker: int | None = None) -> Reading:
    """Rows a second, and the CPU time per row of this process and of the worker in microseconds."""
    gc.collect()
    process = psutil.Process(worker) if worker else None
    used = sum(process.cpu_times()[:2]) if process else 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    kept = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    used = sum(process.cpu_times()[:2]) - used if process else 0.0
    # Freeing the rows is not timed.
    del kept
    return Reading(count / wall, cpu / count * 1e6, used / count * 1e6)


def many_lines(database: Database, quick: bool) -> Iterator[Line]:
    """Reading all rows of a table, as a list and row by row."""
    rounds = 3 if quick else 7
    sql = f"{_SELECT} many"
    with _both(database) as (bare, ours):
        _filled(database, bare, "many", MANY)
        worker = ours.stats().pid

        def through_exec() -> Any:
            result = ours.exec(sql, timeout=_LIMIT_MS)
            assert result is not None
            assert len(result["values"]) == MANY
            return result

        def through_query() -> None:
            found = 0
            for _ in _rows(ours, sql):
                found += 1
            assert found == MANY

        _same(ours.exec(f"{sql} ORDER BY n"), database.rows(MANY))
        theirs, whole, each = map(
            median_reading,
            alternating(
                rounds,
                lambda: _timed(MANY, lambda: database.fetch_bare(bare, sql)),
                lambda: _timed(MANY, through_exec, worker),
                lambda: _timed(MANY, through_query, worker),
            ),
        )
    for how, mine in (("exec", whole), ("query", each)):
        ratio = mine.rate / theirs.rate
        yield Line(
            f"{database.scheme}: {MANY:,} rows by {how} / {database.client}, fetchall",
            f"{ratio:.2f}x ({_k(mine.rate)} against {_k(theirs.rate)})",
            f">= {READ_GOAL}x",
            ratio >= READ_GOAL,
        )
    yield Line(
        f"{database.scheme}: CPU per row, program and worker: exec; query; {database.client}",
        f"{whole.cpu_us:.1f} and {whole.worker_us:.1f}; {each.cpu_us:.1f} and {each.worker_us:.1f}; "
        f"{theirs.cpu_us:.1f} us",
        "",
        None,
    )


def bulk_lines(database: Database, quick: bool) -> Iterator[Line]:
    """Inserting all rows into an empty table at once."""
    rounds = 1 if quick else 7
    rows = database.rows(MANY)
    sql = database.insert("bulk", "(?, ?, ?, ?, ?)")
    with _both(database) as (bare, ours):
        worker = ours.stats().pid

        def through_dial() -> Reading:
            database.fresh(bare, "bulk")
            return checked(
                _timed(MANY, lambda: ours.executemany(sql, rows, timeout=_LIMIT_MS), worker)
            )

        def directly() -> Reading:
            database.fresh(bare, "bulk")
            return checked(_timed(MANY, lambda: database.insert_bare(bare, "bulk", rows)))

        def checked(reading: Reading) -> Reading:
            ((found,),) = database.fetch_bare(bare, "SELECT count(*) FROM bulk")
            assert found == MANY, f"{found} rows were stored"
            return reading

        theirs, mine = map(median_reading, alternating(rounds, directly, through_dial))
        _same(ours.exec(f"{_SELECT} bulk ORDER BY n"), rows)
    ratio = mine.rate / theirs.rate
    yield Line(
        f"{database.scheme}: {MANY:,} rows by executemany / {database.client}, {database.bulk}",
        f"{ratio:.2f}x ({_k(mine.rate)} against {_k(theirs.rate)})",
        f">= {WRITE_GOAL}x",
        ratio >= WRITE_GOAL,
    )
    yield Line(
        f"{database.scheme}: the same, CPU per row: program, worker; {database.client}",
        f"{mine.cpu_us:.1f}, {mine.worker_us:.1f}; {theirs.cpu_us:.1f} us",
        "",
        None,
    )


def memory_lines(database: Database, quick: bool) -> Iterator[Line]:
    """The memory that a million rows take on their way, on systems that tell it.

    A program of its own reads the rows: this process has spare memory from earlier measurements.
    """
    if not Path("/proc/self/smaps_rollup").exists():
        return
    copies = " UNION ALL ".join(["SELECT 1 AS copy"] * _COPIES)
    with contextlib.closing(database.connect()) as bare:
        _filled(database, bare, "part", MANY)
        database.fresh(bare, "big")
        database.run_bare(bare, f"INSERT INTO big {_SELECT} part CROSS JOIN ({copies}) AS copies")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as program:
        grown = program.submit(_grown, database.address).result()
    rss_worker, pss_worker, rss, pss = grown
    yield Line(
        f"{database.scheme}: memory that {MANY * _COPIES:,} rows by query take: worker, program",
        f"+{pss_worker:.1f}, +{pss:.1f} MB PSS (+{rss_worker:.1f}, +{rss:.1f} MB RSS)",
        f"<= {MEMORY_MB} MB each",
        max(grown) <= MEMORY_MB,
    )


def _grown(address: str) -> list[float]:
    """The most MB by which the worker and this process grew while all rows were read."""
    with trunkline.connect(address) as connection:
        worker = connection.stats().pid
        assert worker is not None
        for _ in _rows(connection, f"{_SELECT} big LIMIT 100"):
            pass
        gc.collect()
        before = most = _memory(worker)
        seen = 0
        for _ in _rows(connection, f"{_SELECT} big"):
            seen += 1
            if seen % 20_000 == 0:
                most = [max(pair) for pair in zip(most, _memory(worker), strict=True)]
    assert seen == MANY * _COPIES, f"{seen} rows came"
    return [now - then for now, then in zip(most, before, strict=True)]


def _memory(worker: int) -> list[float]:
    """RSS and PSS of the worker, then of this process, in MB."""
    processes = (psutil.Process(worker), psutil.Process())
    return [
        figure
        for each in processes
        for figure in (each.memory_info().rss / 2**20, pss_mb(each.pid))
    ]


def shared_lines(database: Database, quick: bool) -> Iterator[Line]:
    """Many processes that read row by row, by a shared handle or with a connection each."""
    count, rounds = (300, 1) if quick else (2_000, 3)
    with _both(database) as (bare, ours):
        _filled(database, bare, "shared", 100)
        theirs, mine = map(
            middle,
            alternating(
                rounds,
                lambda: shared(_look_bare, (database,), count),
                lambda: shared(_look_through, (ours.fd(),), count),
            ),
        )
    if theirs.failed or mine.done != PROCESSES * count:
        raise AssertionError(theirs.why or mine.why)
    yield Line(
        f"{database.scheme}: {PROCESSES} processes x {count:,} selects, one handle / a connection each",
        f"{mine.rate / theirs.rate:.2f}x ({mine.text} against {theirs.text})",
        "",
        None,
    )


def shared_insert_lines(database: Database, quick: bool) -> Iterator[Line]:
    """Many processes that insert row by row by a shared handle.

    Statements that wait at the same time share a block, except statements with a deadline of their
    own.
    """
    count, rounds = (50, 1) if quick else (300, 3)
    with _both(database) as (bare, ours):
        _filled(database, bare, "inserted", 0)
        alone, together = map(
            middle,
            alternating(
                rounds,
                lambda: shared(_insert_through, (ours.fd(), _LIMIT_MS), count),
                lambda: shared(_insert_through, (ours.fd(), None), count),
            ),
        )
    if alone.failed or together.failed:
        raise AssertionError(alone.why or together.why)
    yield Line(
        f"{database.scheme}: {PROCESSES} processes x {count:,} inserts, one handle, sharing blocks / apart",
        f"{together.rate / alone.rate:.1f}x ({together.text} against {alone.text})",
        "",
        None,
    )


def _insert_through(handle: int, timeout_ms: int | None) -> Any:
    connection = trunkline.connect(handle)
    sql = "INSERT INTO inserted (n) VALUES (?)"
    return lambda writer, number: connection.exec(
        sql, writer * 1_000_000 + number, timeout=timeout_ms
    )


_LOOK = f"{_SELECT} shared WHERE n ="


def _look_through(handle: int) -> Any:
    connection = trunkline.connect(handle)
    sql = f"{_LOOK} ?"
    return lambda writer, number: connection.exec(sql, number % 100)


def _look_bare(database: Database) -> Any:
    connection = database.connect()
    sql = f"{_LOOK} {database.place}"
    return lambda writer, number: database.fetch_bare(connection, sql, database.bound(number % 100))

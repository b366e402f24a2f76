"""Databases through Dial against the bare Python drivers, on private real servers (tests/servers).

Every database has a module of its own; the measurements are common (`database_lines`). The sides of
a comparison alternate, with the same settings and on the same tables. The rows that arrive or are
stored are compared with the expected rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from benchmarks import database_clickhouse, database_mysql, database_postgres, database_sqlite3
from benchmarks.database_lines import (
    bulk_lines,
    many_lines,
    memory_lines,
    one_row_lines,
    shared_insert_lines,
    shared_lines,
)
from benchmarks.measure import Line
from tests.servers.base import RUN, Unavailable
from tests.servers.run import Run

__all__ = ["DATABASES", "measure_databases"]

Opened = Callable[[Run], AbstractContextManager[Any]]
Lines = Callable[[Any, bool], Iterator[Line]]

_COMMON: tuple[Lines, ...] = (one_row_lines, many_lines, bulk_lines)

DATABASES: dict[str, tuple[Opened, tuple[Lines, ...]]] = {
    "sqlite3": (database_sqlite3.opened, (*_COMMON, memory_lines, database_sqlite3.insert_lines)),
    "mysql": (database_mysql.opened, (*_COMMON, shared_lines)),
    "postgres": (database_postgres.opened, (*_COMMON, memory_lines, shared_lines)),
    "clickhouse": (database_clickhouse.opened, (*_COMMON, shared_lines, shared_insert_lines)),
}


def measure_databases(names: list[str], quick: bool) -> Iterator[Line]:
    """The lines of these databases.

    A database that fails gives a line with the reason, and the others go on. A missing server is no
    failure; lost rows, for example, count as a missed goal.
    """
    run = Run.begin()
    # If this process is killed, the keeper finds the servers by this variable.
    os.environ[RUN] = str(run.folder)
    try:
        for name in names:
            yield from _measure(name, run, quick)
    finally:
        run.end()
        del os.environ[RUN]


def _measure(name: str, run: Run, quick: bool) -> Iterator[Line]:
    opened, measurements = DATABASES[name]
    try:
        with opened(run) as database:
            for lines in measurements:
                try:
                    yield from lines(database, quick)
                except Exception as error:
                    yield Line(f"{name}: failed", f"{type(error).__name__}: {error}", "", False)
    except Unavailable as error:
        yield Line(f"{name}: not measured", str(error), "", None)

"""The databases through Dial against their own Python drivers used bare, on private real servers
(tests/servers).

What a database is to the measurements is in a module each; what is measured is common (`database_lines`).
The sides of one comparison alternate, with the same settings and on the same tables, and what came or was
stored is compared with what had to.
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
    """The lines of these databases. One that cannot be measured says why and does not stop the others: its
    server is not there, or (that counts as missed) rows were lost, for instance."""
    run = Run.begin()
    os.environ[RUN] = str(run.folder)  # by this the keeper finds the servers, should we be killed
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

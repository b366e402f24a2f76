"""sqlite3: the standard library's module bare, and through Dial. Files on the disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import trunkline
from benchmarks.database import Database
from benchmarks.database_shared import PROCESSES, Work, middle, shared
from benchmarks.measure import Line, alternating
from tests.servers.run import Run

__all__ = ["insert_lines", "opened"]

BUSY_MS = 5000
"""Milliseconds that both sides wait for a lock: Dial's default."""


@dataclass(frozen=True)
class Sqlite(Database):
    """A database file."""

    path: str
    journal: str = ""
    """The journal mode, unless the default."""

    scheme: ClassVar[str] = "sqlite3"
    client: ClassVar[str] = "sqlite3"
    types: ClassVar[str] = "INTEGER REAL TEXT TEXT INTEGER"
    bulk: ClassVar[str] = "executemany in a transaction"

    @property
    def address(self) -> str:
        mode = f"&_journal_mode={self.journal}" if self.journal else ""
        return f"sqlite3://{self.path}?_busy_timeout={BUSY_MS}{mode}"

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=BUSY_MS / 1000,
            isolation_level=None,
            detect_types=sqlite3.PARSE_DECLTYPES,
        )
        if self.journal:
            connection.execute(f"PRAGMA journal_mode = {self.journal}").fetchall()
        # The setting of go-sqlite3, and so of Dial.
        connection.execute("PRAGMA synchronous = NORMAL").fetchall()
        return connection

    def fetch_bare(self, connection: Any, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        return list(connection.execute(sql, values).fetchall())

    def run_bare(self, connection: Any, sql: str) -> None:
        connection.execute(sql).fetchall()

    def insert_bare(self, connection: Any, table: str, rows: Sequence[Sequence[Any]]) -> None:
        connection.execute("BEGIN")
        connection.executemany(self.insert(table, "(?, ?, ?, ?, ?)"), rows)
        connection.execute("COMMIT")

    def rows(self, count: int) -> list[tuple[Any, ...]]:
        return [
            (number, price, word, moment.isoformat(" "), int(amount))
            for number, price, word, moment, amount in super().rows(count)
        ]


@contextmanager
def opened(run: Run) -> Iterator[Sqlite]:
    """A file in a folder of its own."""
    with TemporaryDirectory(prefix="trunkline-bench-") as folder:
        yield Sqlite(f"{folder}/main.db")


def insert_lines(database: Sqlite, quick: bool) -> Iterator[Line]:
    """Many processes that insert row by row into the same file, by a shared handle or with a
    connection each."""
    for journal, name in (("WAL", "WAL"), ("", "default journal")):
        yield from _inserts(Path(database.path).parent, journal, name, quick)


def _inserts(folder: Path, journal: str, name: str, quick: bool) -> Iterator[Line]:
    """Inserting with a journal mode.

    The rows in the file are compared with the successful inserts.
    """
    count, rounds = (500, 1) if quick else (5_000, 3 if journal else 1)
    made = 0

    def fresh() -> Sqlite:
        nonlocal made
        made += 1
        database = Sqlite(f"{folder}/shared-{name.split()[0]}-{made}.db", journal)
        with closing(database.connect()) as connection:
            connection.execute("CREATE TABLE t (writer INTEGER, n INTEGER)")
        return database

    def stored(database: Sqlite, work: Work) -> Work:
        with closing(sqlite3.connect(database.path)) as connection:
            count_rows = "SELECT count(*) FROM (SELECT DISTINCT writer, n FROM t)"
            (found,) = connection.execute(count_rows).fetchone()
        if found != work.done:
            raise AssertionError(f"{work.done} inserts were answered, {found} rows are there")
        return work

    def ours() -> Work:
        database = fresh()
        with trunkline.connect(database.address) as connection:
            return stored(database, shared(_insert_through, (connection.fd(),), count))

    def own() -> Work:
        database = fresh()
        return stored(database, shared(_insert_bare, (database,), count))

    theirs, mine = map(middle, alternating(rounds, own, ours))
    whole = mine.done == PROCESSES * count and not mine.failed
    yield Line(
        f"sqlite3, {name}: {PROCESSES} processes x {count:,} inserts, one handle / a connection each",
        f"{mine.rate / theirs.rate:.2f}x ({mine.text} against {theirs.text})",
        "all rows, no error, > 1x",
        whole and mine.rate > theirs.rate,
    )


_INSERT = "INSERT INTO t VALUES (?, ?)"


def _insert_through(handle: int) -> Any:
    connection = trunkline.connect(handle)
    return lambda writer, number: connection.exec(_INSERT, writer, number)


def _insert_bare(database: Sqlite) -> Any:
    connection = database.connect()
    return lambda writer, number: connection.execute(_INSERT, (writer, number))

"""postgres: psycopg2 bare, and through Dial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.broker_lines import started
from benchmarks.database import HOST, Database
from tests.servers.postgres import Postgres as Server
from tests.servers.run import Run

__all__ = ["opened"]

_PAGE = 1000
"""Rows in a statement of `execute_values`; the default of 100 is slower."""


@dataclass(frozen=True)
class Postgres(Database):
    """The database "postgres" of a server."""

    port: int

    scheme: ClassVar[str] = "postgres"
    client: ClassVar[str] = "psycopg2"
    types: ClassVar[str] = "bigint float8 text timestamp numeric(18,2)"
    bulk: ClassVar[str] = "execute_values"
    place: ClassVar[str] = "%s"

    @property
    def address(self) -> str:
        return f"postgres://u:p@{HOST}:{self.port}/postgres?sslmode=disable"

    def create(self, table: str) -> list[str]:
        return [*super().create(table), f"CREATE INDEX ON {table} (n)"]

    def connect(self) -> Any:
        import psycopg2

        connection = psycopg2.connect(
            host=HOST, port=self.port, user="u", password="p", dbname="postgres", sslmode="disable"
        )
        connection.autocommit = True
        return connection

    def insert_bare(self, connection: Any, table: str, rows: Sequence[Sequence[Any]]) -> None:
        from psycopg2.extras import execute_values

        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            execute_values(cursor, self.insert(table, "%s"), rows, page_size=_PAGE)
            cursor.execute("COMMIT")


@contextmanager
def opened(run: Run) -> Iterator[Postgres]:
    """A private server."""
    with started(run, Server) as server:
        yield Postgres(server.port)

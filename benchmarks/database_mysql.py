"""mysql: mysql-connector-python bare (in pure Python, as in the worker), and through Dial.

On MariaDB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.broker_lines import started
from benchmarks.database import HOST, Database
from tests.servers.mariadb import MariaDb
from tests.servers.run import Run

__all__ = ["opened"]


@dataclass(frozen=True)
class Mysql(Database):
    """The database "t" of a server."""

    port: int

    scheme: ClassVar[str] = "mysql"
    client: ClassVar[str] = "mysql-connector"
    types: ClassVar[str] = "BIGINT DOUBLE VARCHAR(40) DATETIME(6) DECIMAL(18,2)"
    bulk: ClassVar[str] = "executemany in a transaction"
    place: ClassVar[str] = "%s"

    @property
    def address(self) -> str:
        return f"mysql://u:p@tcp({HOST}:{self.port})/t"

    def create(self, table: str) -> list[str]:
        return [*super().create(table), f"ALTER TABLE {table} ADD KEY (n)"]

    def connect(self) -> Any:
        import mysql.connector

        return mysql.connector.connect(
            host=HOST,
            port=self.port,
            user="u",
            password="p",
            database="t",
            charset="utf8mb4",
            use_pure=True,
            autocommit=True,
            ssl_disabled=True,
        )

    def insert_bare(self, connection: Any, table: str, rows: Sequence[Sequence[Any]]) -> None:
        connection.start_transaction()
        with connection.cursor() as cursor:
            cursor.executemany(self.insert(table, "(%s, %s, %s, %s, %s)"), rows)
        connection.commit()


@contextmanager
def opened(run: Run) -> Iterator[Mysql]:
    """A private server."""
    with started(run, MariaDb) as server:
        yield Mysql(server.port)

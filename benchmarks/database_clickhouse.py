"""clickhouse: clickhouse-driver bare, and through Dial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.broker_lines import started
from benchmarks.database import HOST, Database
from tests.servers.clickhouse import ClickHouse
from tests.servers.run import Run

__all__ = ["opened"]


class _Closing:
    """A client with the method `close` of connections."""

    def __init__(self, client: Any) -> None:
        self.execute, self.close = client.execute, client.disconnect


@dataclass(frozen=True)
class Clickhouse(Database):
    """The database "default" of a server."""

    port: int

    scheme: ClassVar[str] = "clickhouse"
    client: ClassVar[str] = "clickhouse-driver"
    types: ClassVar[str] = "Int64 Float64 String DateTime Decimal(18,2)"
    bulk: ClassVar[str] = "execute with a list"
    end_of_create: ClassVar[str] = " ENGINE = MergeTree ORDER BY n"
    place: ClassVar[str] = "%(key)s"

    @property
    def address(self) -> str:
        return f"clickhouse://u:p@{HOST}:{self.port}/default"

    def connect(self) -> Any:
        from clickhouse_driver import Client

        return _Closing(
            Client(host=HOST, port=self.port, user="u", password="p", database="default")
        )

    def bound(self, value: Any) -> Any:
        return {"key": value}

    def fetch_bare(self, connection: Any, sql: str, values: Any = None) -> list[Any]:
        return list(connection.execute(sql, values))

    def run_bare(self, connection: Any, sql: str) -> None:
        connection.execute(sql)

    def insert_bare(self, connection: Any, table: str, rows: Sequence[Sequence[Any]]) -> None:
        connection.execute(self.insert(table, ""), rows)


@contextmanager
def opened(run: Run) -> Iterator[Clickhouse]:
    """A private server."""
    with started(run, ClickHouse) as server:
        yield Clickhouse(server.port)

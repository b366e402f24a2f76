"""The other side of a PostgreSQL connection: what its server says, asked past Trunkline."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg2

from tests.servers.base import HOST
from tests.servers.postgres import Postgres
from tests.support.waiting import until

__all__ = ["ask", "own_schema", "until_runs"]


def ask(server: Postgres, sql: str, *binds: Any) -> list[tuple[Any, ...]]:
    """Run a statement as the user who may do everything; its rows."""
    connection = psycopg2.connect(
        host=HOST, port=server.port, user="u", password="p", dbname="postgres"
    )
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql, binds or None)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


@contextlib.contextmanager
def own_schema(server: Postgres) -> Iterator[str]:
    """The name of a new schema, which is dropped in the end."""
    name = f"s{uuid.uuid4().hex[:12]}"
    ask(server, f"CREATE SCHEMA {name}")
    try:
        yield name
    finally:
        ask(server, f"DROP SCHEMA {name} CASCADE")


def until_runs(server: Postgres, part: str, count: int = 1) -> None:
    """So many statements with these words in them run."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
    until(
        lambda: ask(server, f"{sql} AND position(%s IN query) > 0", part)[0][0] == count,
        f"{count} statements with {part}",
    )

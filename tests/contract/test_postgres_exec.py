"""postgres passes the contract of databases."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg2
import pytest

from tests.contract.exec_contract import ExecContract
from tests.servers.postgres import Postgres


class TestPostgres(ExecContract):
    slow = "SELECT pg_sleep(300)"
    error_code = "42601"

    @pytest.fixture
    def address(self, postgres: Postgres) -> Iterator[str]:
        """In a schema of the test's own."""
        schema = f"s{uuid.uuid4().hex[:12]}"
        admin = psycopg2.connect(
            host="127.0.0.1", port=postgres.port, user="u", password="p", dbname="postgres"
        )
        admin.autocommit = True
        with admin.cursor() as cursor:
            cursor.execute(f"CREATE SCHEMA {schema}")
            yield f"postgres://u:p@{postgres.address}/postgres?search_path={schema}"
            cursor.execute(f"DROP SCHEMA {schema} CASCADE")
        admin.close()

"""postgres passes the contract of databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.postgres import Postgres
from tests.support.postgres_side import own_schema
from trunkline.testing.contracts import ExecContract


class TestPostgres(ExecContract):
    slow = "SELECT pg_sleep(300)"
    error_code = "42601"

    @pytest.fixture
    def address(self, postgres: Postgres) -> Iterator[str]:
        with own_schema(postgres) as schema:
            yield f"postgres://u:p@{postgres.address}/postgres?search_path={schema}"

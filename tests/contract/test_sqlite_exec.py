"""sqlite3 passes the contract of databases, in a file and in memory that is shared by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.testing.contracts import ExecContract


class TestSqlite(ExecContract):
    slow = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    error_code = "SQLITE_ERROR"

    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        return f"sqlite3://{tmp_path}/test.db"

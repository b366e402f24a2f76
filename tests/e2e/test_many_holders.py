"""Many holders of one connection at once, some of whose statements run out of time: the others are answered
rightly, and nobody's statement is stopped in place of another's."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import trunkline
from tests.servers.mariadb import MariaDb
from tests.servers.postgres import Postgres
from tests.support.statements import rows
from trunkline.errors import OperationTimeout, OutcomeUnknown
from trunkline.proxy.connection import Connection

HOLDERS, STATEMENTS = 6, 120
SLOW = {
    "sqlite3": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c",
    "postgres": "SELECT pg_sleep(60)",
    "mysql": "SELECT SLEEP(60)",
}


@pytest.fixture(params=["sqlite3", "postgres", "mysql"])
def conn(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    if request.param == "sqlite3":
        address = f"sqlite3://{tmp_path}/test.db"
    elif request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        address = f"postgres://u:p@{server.address}/postgres"
    else:
        maria: MariaDb = request.getfixturevalue("mariadb")
        address = f"mysql://u:p@tcp({maria.address})/t"
    with trunkline.connect(address, linger=0.2) as connection:
        yield connection


def _hold(handle: int, table: str, slow: str, who: int, chance: random.Random) -> int:
    """Returns how many rows it has written."""
    written = 0
    with trunkline.connect(handle) as mine:
        for n in range(STATEMENTS):
            kind = chance.random()
            if kind < 0.6:
                assert rows(mine, "SELECT ? + 0, ? + 0", who, n) == [[who, n]]
            elif kind < 0.8:
                assert mine.exec(f"INSERT INTO {table} VALUES (?, ?)", who, n) is not None
                written += 1
            elif kind < 0.97:
                result = mine.exec("SELECT ? + 0", n, timeout=30_000)
                assert result is not None
                assert result["values"] == [[n]]
            else:
                with pytest.raises((OperationTimeout, OutcomeUnknown)):
                    mine.exec(slow, timeout=chance.choice([1, 20, 60]))
    return written


@pytest.mark.timeout(110)
def test_each_is_answered_for_itself(conn: Connection, rng: random.Random) -> None:
    scheme = conn.stats().scheme
    table = f"held_{uuid.uuid4().hex[:12]}"
    conn.exec(f"CREATE TABLE {table} (who INTEGER, n INTEGER)")
    handle = conn.fd()
    try:
        with ThreadPoolExecutor(HOLDERS) as pool:
            jobs = [
                pool.submit(_hold, handle, table, SLOW[scheme], who, random.Random(rng.random()))
                for who in range(HOLDERS)
            ]
            written = sum(job.result(100) for job in jobs)
        assert rows(conn, f"SELECT count(*) FROM {table}") == [[written]]
    finally:
        conn.exec(f"DROP TABLE {table}")

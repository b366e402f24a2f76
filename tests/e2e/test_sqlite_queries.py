"""Queries and bulks of SQLite on one connection that many share: nobody's end is another's."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import trunkline
from tests.support.statements import rows
from trunkline.errors import OperationTimeout, StatementError
from trunkline.proxy.connection import Connection

SLOW = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
SERIES = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {}) SELECT n, {} FROM c"
# longer than a test may take, for each row
SLOW_INSERT = f"INSERT INTO t SELECT ?, max(x) FROM ({SLOW.replace('count(*)', 'x')})"


@pytest.fixture
def holders(tmp_path: Path) -> Iterator[tuple[Connection, Connection]]:
    with trunkline.connect(f"sqlite3://{tmp_path}/test.db", linger=0.2) as first:
        first.exec("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
        handle = first.fd()
        assert handle
        with trunkline.connect(handle, linger=0.2) as second:
            yield first, second


def test_a_timeout_stops_one_statement_and_no_open_query(
    holders: tuple[Connection, Connection],
) -> None:
    one, other = holders
    with (
        one.query(SERIES.format(50_000, "'x'")) or [] as found,
        one.query("SELECT 1") or [] as short,
    ):
        assert next(found) == [1, "x"]
        for _ in range(3):
            with pytest.raises(OperationTimeout):
                other.exec(SLOW, timeout=100)
            assert rows(other, "SELECT 1") == [[1]]
        with pytest.raises(OperationTimeout):
            other.query(SLOW, timeout=100)
        assert [row[0] for row in found] == list(range(2, 50_001))
        assert list(short) == [[1]]


def test_a_batch_that_runs_out_of_time_ends_only_its_own_query(
    holders: tuple[Connection, Connection],
) -> None:
    one, other = holders
    # its first batch comes at once, its second never
    slow = SERIES.format(1 << 60, "printf('%01000d', n)") + " WHERE n < 400"
    stuck = one.query(slow, timeout=300)
    assert stuck is not None
    with other.query(SERIES.format(50_000, "'x'")) or [] as found:
        assert next(found) == [1, "x"]
        with pytest.raises(OperationTimeout):
            list(stuck)
        assert [row[0] for row in found] == list(range(2, 50_001))
    assert rows(one, "SELECT 1") == [[1]]


def test_a_bulk_that_runs_out_of_time_writes_nothing(
    holders: tuple[Connection, Connection],
) -> None:
    one, other = holders
    with pytest.raises(OperationTimeout):
        one.executemany(SLOW_INSERT, [(n,) for n in range(10)], timeout=200)
    assert rows(other, "SELECT count(*) FROM t") == [[0]]
    result = other.executemany(
        "INSERT INTO t VALUES (?, ?)", [(n, "x") for n in range(10)], timeout=20_000
    )
    assert result is not None
    assert result["affected"] == 10


def test_a_wrong_row_in_a_block_takes_back_its_bulk_alone(
    holders: tuple[Connection, Connection],
) -> None:
    one, other = holders
    with one.transaction():
        one.exec("INSERT INTO t VALUES (100, 'kept')")
        with pytest.raises(StatementError, match=r"^row 3: UNIQUE constraint failed: t\.a$"):
            one.executemany("INSERT INTO t VALUES (?, ?)", [(1, "x"), (2, "x"), (1, "x")])
        one.executemany("INSERT INTO t VALUES (?, ?)", [(3, "kept")])
    assert rows(other, "SELECT a FROM t") == [[3], [100]]


def test_bulks_and_queries_of_several_holders_at_once(
    holders: tuple[Connection, Connection],
) -> None:
    one, other = holders

    def write(part: int) -> None:
        for batch in range(10):
            start = part * 10_000 + batch * 100
            other.executemany(
                "INSERT INTO t VALUES (?, ?)", [(start + n, part) for n in range(100)]
            )

    def read(_: int) -> int:
        with one.query(SERIES.format(20_000, "'x'")) or [] as found:
            return sum(1 for _ in found)

    with ThreadPoolExecutor(8) as pool:
        writes, counts = pool.map(write, range(4)), pool.map(read, range(4))
        assert list(counts) == [20_000] * 4
        assert list(writes) == [None] * 4
    assert rows(one, "SELECT b, count(*) FROM t GROUP BY b") == [[part, 1000] for part in range(4)]


def test_a_query_of_many_rows_takes_little_memory(holders: tuple[Connection, Connection]) -> None:
    one, _ = holders
    worker = psutil.Process(one.stats().pid)
    before = worker.memory_info().rss
    largest = count = 0
    with one.query(SERIES.format(100_000, "printf('%01000d', n)")) or [] as found:
        for count, _row in enumerate(found, 1):
            if count % 10_000 == 0:
                largest = max(largest, worker.memory_info().rss - before)
    assert count == 100_000
    assert largest < 30 * 1024 * 1024, "of a hundred megabytes of rows"

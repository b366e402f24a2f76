"""Queries on links of their own: what one of them leaves on its link meets nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import trunkline
from tests.servers.postgres import Postgres
from tests.support.statements import rows
from tests.support.waiting import Background, until
from trunkline.errors import BrokenError, DeadHandle, OperationTimeout, StatementError
from trunkline.proxy.connection import Connection

LINKS = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = ? AND pid <> pg_backend_pid()"
)


@pytest.fixture
def name(postgres: Postgres) -> str:
    return postgres.unique("apart")


@pytest.fixture
def conn(postgres: Postgres, name: str) -> Iterator[Connection]:
    address = f"postgres://u:p@{postgres.address}/postgres?application_name={name}&work_mem=123kB"
    with trunkline.connect(address, linger=0.2) as connection:
        yield connection


def test_a_link_is_as_new_for_the_next_query(conn: Connection) -> None:
    dirty = (
        "SELECT set_config('work_mem', '77kB', false), pg_try_advisory_lock(4711), pg_backend_pid()"
    )
    [[_, locked, first]] = list(conn.query(dirty) or [])
    assert locked is True
    look = "SELECT current_setting('work_mem'), pg_backend_pid()"
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = ?"
    until(lambda: rows(conn, locks, first) == [[0]], "the end of the lock")
    seen = {first}

    def used_again() -> bool:
        [[work_mem, pid]] = list(conn.query(look) or [])
        assert work_mem == "123kB"
        again = pid in seen
        seen.add(pid)
        return again

    until(used_again, "a second query on one link")


def test_open_queries_do_not_keep_statements_waiting_and_their_number_has_an_end(
    conn: Connection, name: str
) -> None:
    queries = [conn.query("SELECT * FROM generate_series(1, 100000)") for _ in range(16)]
    with pytest.raises(OperationTimeout, match="16 queries are open"):
        conn.query("SELECT 1", timeout=200)
    assert rows(conn, LINKS, name) == [[16]]
    waiting = [Background(lambda: list(conn.query("SELECT 17") or [])) for _ in range(3)]
    until(lambda: conn.stats().statements >= 16 + 1 + 1 + 3, "three more wait in line")
    assert all(each.running() for each in waiting)
    assert rows(conn, LINKS, name) == [[16]]
    queries.pop().close()  # type: ignore[union-attr]
    assert [each.result() for each in waiting] == [[[17]]] * 3
    for found in queries:
        assert next(found) == [1]  # type: ignore[call-overload]
        found.close()  # type: ignore[union-attr]
    until(lambda: rows(conn, LINKS, name)[0][0] <= 1, "the links closed, but for one")
    assert len(list(conn.query("SELECT * FROM generate_series(1, 1000)") or [])) == 1000


def test_a_query_that_is_slow_on_the_way_keeps_its_deadline(conn: Connection, name: str) -> None:
    slow = "SELECT n, CASE WHEN n > 20000 THEN pg_sleep(0.01) END::text FROM generate_series(1, 100000) n"
    found = conn.query(slow, timeout=500)
    assert found is not None
    with pytest.raises(OperationTimeout):
        list(found)
    until(lambda: rows(conn, LINKS, name) == [[0]], "the end of the query at the server")


def test_a_query_whose_server_is_killed_says_so(start_server: Callable[..., Postgres]) -> None:
    server = start_server(Postgres)
    with trunkline.connect(f"postgres://u:p@{server.address}/postgres", linger=0.2) as conn:
        found = conn.query("SELECT n, repeat('x', 1000) FROM generate_series(1, 1000000) n")
        assert found is not None
        next(found)
        server.kill()
        with pytest.raises((BrokenError, StatementError)):
            list(found)
        server.start()
        assert rows(conn, "SELECT 1") == [[1]]


def test_the_links_of_queries_end_with_their_connection(
    postgres: Postgres, conn: Connection, name: str
) -> None:
    held = [conn.query("SELECT * FROM generate_series(1, 100000)") for _ in range(3)]
    list(conn.query("SELECT 1") or [])
    conn.close()
    with trunkline.connect(f"postgres://u:p@{postgres.address}/postgres") as other:
        until(lambda: rows(other, LINKS, name) == [[0]], "the end of all links")
    with pytest.raises((trunkline.ClosedError, DeadHandle)):
        list(held[0] or [])


def test_threads_share_the_rows_of_a_query(conn: Connection) -> None:
    found = conn.query("SELECT * FROM generate_series(1, 50000)")
    with ThreadPoolExecutor(4) as pool:
        taken = [job.result(30) for job in [pool.submit(list, found) for _ in range(4)]]  # type: ignore[arg-type]
    assert sorted(row[0] for each in taken for row in each) == list(range(1, 50_001))

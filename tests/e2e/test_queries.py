"""`query` and `executemany` when programs and workers die, stop, fork or misbehave; on sqlite, whose queries
share the connection. What holds for every database is in the contract."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import trunkline
from tests.support.statements import rows
from tests.support.stopping import stop
from tests.support.waiting import until
from trunkline.errors import BrokenError, ClosedError, OperationTimeout, StatementError
from trunkline.proxy.connection import Connection
from trunkline.proxy.rows import Rows

SERIES = (
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {count}) "
    "SELECT n, 'some text of a row' FROM c"
)


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Connection]:
    with trunkline.connect(f"sqlite3://{tmp_path}/test.db", linger=0.2) as connection:
        connection.exec("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
        yield connection


def _query(connection: Connection, count: int) -> Rows:
    found = connection.query(SERIES.format(count=count))
    assert found is not None
    return found


def _strategy(connection: Connection, body: str) -> subprocess.Popen[str]:
    """Another program that shares the connection; it runs `body` with it as `conn`."""
    handle = connection.fd()
    program = f"import sys, time, trunkline\nconn = trunkline.connect({handle})\n{body}"
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def _said(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == word


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=10)


def _waits(connection: Connection) -> bool:
    """Whether a statement of another program has the connection."""
    try:
        connection.exec("SELECT 1", timeout=50)
    except OperationTimeout:
        return True
    return False


# those who die


@pytest.mark.parametrize("raising", [True, False])
def test_a_killed_worker_ends_its_queries_with_an_error(tmp_path: Path, raising: bool) -> None:
    dial = trunkline.connect if raising else trunkline.Dial
    conn = dial(f"sqlite3://{tmp_path}/test.db", linger=0.2)
    assert conn is not None
    with conn:
        found = _query(conn, 1_000_000)
        next(found)
        pid = conn.stats().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises((BrokenError, StatementError)):
            list(found)
        with pytest.raises(
            (BrokenError, StatementError)
        ):  # and it stays so: nobody takes it for an end
            next(found)
        assert rows(conn, "SELECT 1") == [[1]]


def test_the_queries_of_a_killed_program_are_closed(conn: Connection) -> None:
    body = f"found = conn.query({SERIES.format(count=1_000_000)!r})\nnext(found)\nprint('ready', flush=True)\n"
    process = _strategy(conn, body + "time.sleep(60)")
    try:
        _said(process, "ready")
        assert conn.stats().queries == 1
    finally:
        _end(process)
    until(lambda: conn.stats().queries == 0, "the end of the query")


def test_a_program_killed_in_a_long_answer_holds_nobody_up(conn: Connection) -> None:
    body = f"print('ready', flush=True)\nconn.exec({SERIES.format(count=3_000_000)!r})"
    process = _strategy(conn, body)
    before = conn.stats().rows
    try:
        _said(process, "ready")
        until(lambda: conn.stats().rows > before, "the first rows")
    finally:
        _end(process)
    assert rows(conn, "SELECT 1") == [[1]]


def test_a_program_stopped_in_a_long_answer_holds_nobody_up_for_long(conn: Connection) -> None:
    body = f"print('ready', flush=True)\nconn.exec({SERIES.format(count=3_000_000)!r})"
    process = _strategy(conn, body)
    before = conn.stats().rows
    try:
        _said(process, "ready")
        until(lambda: conn.stats().rows > before, "the first rows")
        stop(process.pid)
        assert rows(conn, "SELECT 1") == [[1]]
    finally:
        _end(process)


# many


def test_a_query_that_nobody_reads_keeps_nobody_waiting(conn: Connection) -> None:
    with _query(conn, 1_000_000) as found, trunkline.connect(conn.fd()) as other:
        next(found)
        for n in range(50):
            other.exec("INSERT INTO t VALUES (?, 'x')", n)
        with other.transaction():
            other.exec("INSERT INTO t VALUES (100, 'x')")
    assert rows(conn, "SELECT count(*) FROM t") == [[51]]


def test_too_many_open_queries_are_refused(conn: Connection) -> None:
    queries = [_query(conn, 1_000) for _ in range(256)]
    with pytest.raises(StatementError, match="256 queries are open"):
        _query(conn, 1_000)
    for found in queries:
        assert next(found)[0] == 1
        found.close()
    assert len(list(_query(conn, 1_000))) == 1_000


def test_neither_side_holds_the_whole_result(conn: Connection) -> None:
    pid = conn.stats().pid
    assert pid is not None
    worker, program = psutil.Process(pid), psutil.Process()
    with _query(conn, 600_000) as found:
        for _ in range(1000):
            next(found)
        before = worker.memory_info().rss, program.memory_info().rss
        largest = (0, 0)
        for number, _ in enumerate(found):
            if number % 50_000 == 0:
                largest = (
                    max(largest[0], worker.memory_info().rss),
                    max(largest[1], program.memory_info().rss),
                )
    # all rows are some 100 MB as Python objects
    assert largest[0] - before[0] < 30e6
    assert largest[1] - before[1] < 30e6


def test_threads_share_the_rows_of_a_query(conn: Connection) -> None:
    with _query(conn, 50_000) as found, ThreadPoolExecutor(4) as pool:
        taken = [job.result(30) for job in [pool.submit(list, found) for _ in range(4)]]
    assert sorted(row[0] for rows_ in taken for row in rows_) == list(range(1, 50_001))


def test_a_statement_whose_object_is_closed_says_so(conn: Connection) -> None:
    slow = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    with trunkline.connect(conn.fd()) as other, ThreadPoolExecutor(1) as pool:
        job = pool.submit(other.exec, slow)
        until(lambda: _waits(conn), "the slow statement")
        other.close()
        with pytest.raises(trunkline.TrunklineError, match="closed"):
            job.result(20)
    assert rows(conn, "SELECT 1") == [[1]]


# what is no query any more


def test_a_forked_child_cannot_go_on_with_its_parents_query(conn: Connection) -> None:
    found = _query(conn, 100_000)
    next(found)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = b"nothing"
        try:
            list(found)
        except ClosedError as error:
            said = str(error).encode()
        finally:
            os.write(writer, said)
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as pipe:
        first_batch_and_then = pipe.read()
    assert "forked child" in first_batch_and_then
    assert len(list(found)) == 99_999


def test_a_closed_connection_ends_its_queries(tmp_path: Path) -> None:
    conn = trunkline.connect(f"sqlite3://{tmp_path}/test.db", linger=0.2)
    found = _query(conn, 100_000)
    next(found)
    conn.close()
    with pytest.raises(ClosedError):
        list(found)
    found.close()


def test_repr_tells_the_state(conn: Connection) -> None:
    with _query(conn, 1_000) as found:
        assert repr(found) == "<Rows of 2 columns, open>"
    assert "closed" in repr(found)


# executemany


def test_rows_may_be_any_iterable(conn: Connection) -> None:
    conn.executemany("INSERT INTO t VALUES (?, ?)", ((n, str(n)) for n in range(2_500)))
    conn.executemany(
        "INSERT INTO t VALUES (:a, :b)", [{"a": 5_000, "b": "x"}, {"b": "y", "a": 5_001}]
    )
    conn.executemany("INSERT INTO t VALUES (?, ?)", [range(6_000, 6_002)])
    assert rows(conn, "SELECT count(*), max(a) FROM t") == [[2_503, 6_000]]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("ab", "takes rows"),
        ({"a": 1}, "takes rows"),
        ([(1, 2), "ab"], "rows of values"),
        ([(1, 2), 3], "rows of values"),
        ([(1, 2), {"a": 1}], "all mappings or all"),
        ([*([n, n] for n in range(1_500)), {"a": 1}], "all mappings or all"),
    ],
)
def test_what_is_no_rows_is_a_mistake_of_the_program(
    conn: Connection, given: object, says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        conn.executemany("INSERT INTO t VALUES (?, ?)", given)  # type: ignore[arg-type]
    assert rows(conn, "SELECT count(*) FROM t") == [[0]]


def test_executemany_that_runs_out_of_time_writes_nothing(conn: Connection) -> None:
    slow = (
        "INSERT INTO t SELECT ?, (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 3000)"
        " SELECT count(*) FROM c)"
    )
    with pytest.raises(OperationTimeout):
        conn.executemany(slow, [[n] for n in range(100_000)], timeout=300)
    assert rows(conn, "SELECT count(*) FROM t") == [[0]]


def test_a_killed_program_leaves_nothing_of_its_bulk(conn: Connection) -> None:
    slow = (
        "INSERT INTO t SELECT ?, (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 3000)"
        " SELECT count(*) FROM c)"
    )
    body = (
        f"print('ready', flush=True)\nconn.executemany({slow!r}, [[n] for n in range(1_000_000)])"
    )
    process = _strategy(conn, body)
    try:
        _said(process, "ready")
        until(lambda: _waits(conn), "the bulk")
    finally:
        _end(process)
    assert rows(conn, "SELECT count(*) FROM t") == [[0]]


def test_an_object_of_Dial_answers_failure_with_None(tmp_path: Path) -> None:
    with trunkline.Dial(f"sqlite3://{tmp_path}/test.db") as conn:  # type: ignore[union-attr]
        assert conn.query("SELCT") is None
        assert conn.executemany("INSERT INTO gone VALUES (?)", [[1]]) is None
        assert "gone" in trunkline.last_error()

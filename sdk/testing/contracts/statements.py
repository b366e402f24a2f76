"""The contract of database drivers, tested through `Dial`. A driver's author subclasses a class of
this module.

    class TestSqlite(ExecContract):
        slow = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
        error_code = "SQLITE_ERROR"

        @pytest.fixture
        def address(self, tmp_path): return f"sqlite3://{tmp_path}/test.db"

The tests use plain SQL. Where databases differ, the SQL is an attribute of the class.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

import trunkline
from trunkline.errors import (
    ClosedError,
    OperationTimeout,
    OutcomeUnknown,
    StatementError,
    Unsupported,
)
from trunkline.proxy.connection import Connection, RaisingConnection
from trunkline.testing.waiting import until

__all__ = ["ExecContract", "StatementContract", "rows"]

STOPPED = (OperationTimeout, OutcomeUnknown)
"""The errors of a statement that took too long.

On a busy machine the server's confirmation that the statement was stopped may come too late.
"""


def rows(connection: Connection, sql: str, *binds: Any) -> list[list[Any]]:
    """The rows of a statement that must succeed."""
    result = connection.exec(sql, *binds)
    assert result is not None, trunkline.last_error()
    values: list[list[Any]] = result["values"]
    return values


class StatementContract:
    """The contract of every database, with or without transactions.

    A subclass has the fixture `address`, the address of an empty database. All dials of a test get
    the same address. The subclass sets the attributes below where its SQL differs.
    """

    slow: ClassVar[str]
    """A statement that would run for minutes."""
    create: ClassVar[str] = "CREATE TABLE {table} (id INTEGER PRIMARY KEY, name VARCHAR(200))"
    """A statement that makes `{table}`, with a whole number `id` and a text `name` that may be
    NULL."""
    delete: ClassVar[str] = "DELETE FROM {table} WHERE id > 1"
    error_code: ClassVar[str | int] = ""
    """The server's code for a syntax error, as in `StatementError.code`."""

    @pytest.fixture
    def conn(self, address: str) -> Iterator[RaisingConnection]:
        with trunkline.connect(address, linger=0.2) as connection:
            yield connection

    @pytest.fixture
    def table(self, conn: RaisingConnection) -> str:
        """A new table. The table is not dropped: connections end with the test's body, before
        fixtures do."""
        name = f"t{uuid.uuid4().hex[:12]}"
        conn.exec(self.create.format(table=name))
        return name

    # results

    def test_a_select_gives_its_columns_and_rows(self, conn: RaisingConnection) -> None:
        result = conn.exec("SELECT 1 AS one, 'x' AS two")
        assert result == {"columns": ["one", "two"], "values": [[1, "x"]]}

    def test_a_statement_without_rows_gives_empty_lists(
        self, conn: RaisingConnection, table: str
    ) -> None:
        result = conn.exec(f"INSERT INTO {table} VALUES (1, 'a'), (2, 'b')")
        assert result is not None
        assert (result["columns"], result["values"]) == ([], [])

    def test_affected_counts_the_changed_rows(self, conn: RaisingConnection, table: str) -> None:
        conn.exec(f"INSERT INTO {table} VALUES (1, 'a'), (2, 'b'), (3, 'c')")
        result = conn.exec(self.delete.format(table=table))
        assert result is not None
        assert result.get("affected", 2) == 2

    def test_no_rows_still_have_columns(self, conn: RaisingConnection, table: str) -> None:
        assert conn.exec(f"SELECT id, name FROM {table}") == {
            "columns": ["id", "name"],
            "values": [],
        }

    # values

    def test_question_marks_take_values_in_order(self, conn: RaisingConnection, table: str) -> None:
        conn.exec(f"INSERT INTO {table} VALUES (?, ?)", 7, "seven")
        conn.exec(f"INSERT INTO {table} VALUES (?, ?)", 8, None)
        assert rows(conn, f"SELECT id, name FROM {table} WHERE id >= ? ORDER BY id", 7) == [
            [7, "seven"],
            [8, None],
        ]

    def test_text_in_strings_and_comments_is_no_placeholder(self, conn: RaisingConnection) -> None:
        assert rows(conn, "SELECT '? %s $1 :x', 5 /* ? */") == [["? %s $1 :x", 5]]

    @pytest.mark.parametrize("binds", [(), (1, 2, 3)])
    def test_a_wrong_number_of_values_is_refused(
        self, conn: RaisingConnection, table: str, binds: tuple[int, ...]
    ) -> None:
        with pytest.raises(StatementError):
            conn.exec(f"INSERT INTO {table} VALUES (?, ?)", *binds)
        assert rows(conn, f"SELECT count(*) FROM {table}") == [[0]]

    # many rows

    series: ClassVar[str] = (
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {count}) "
        "SELECT n, 'row' FROM c"
    )
    """A statement with `{count}` rows: a whole number from 1 on, in order, and the text `row`."""

    def test_a_long_result_arrives_whole_and_in_order(self, conn: RaisingConnection) -> None:
        found = rows(conn, self.series.format(count=50_000))
        assert found == [[n, "row"] for n in range(1, 50_001)]

    def test_a_query_gives_the_same_rows_one_after_the_other(self, conn: RaisingConnection) -> None:
        found = conn.query(self.series.format(count=20_000))
        assert found is not None
        assert len(found.columns) == 2
        assert list(found) == [[n, "row"] for n in range(1, 20_001)]
        assert list(found) == []

    def test_a_query_of_few_rows_or_none(self, conn: RaisingConnection, table: str) -> None:
        assert list(conn.query(f"SELECT id, name FROM {table}")) == []
        conn.exec(f"INSERT INTO {table} VALUES (?, ?)", 1, "a")
        with conn.query(f"SELECT id, name FROM {table} WHERE id = ?", 1) as found:
            assert list(found) == [[1, "a"]]

    def test_statements_go_on_while_a_query_is_open(
        self, conn: RaisingConnection, table: str
    ) -> None:
        with conn.query(self.series.format(count=20_000)) as found:
            for n in range(1, 20_001):
                assert next(found)[0] == n
                if n % 5_000 == 0:
                    conn.exec(f"INSERT INTO {table} VALUES (?, ?)", n, "x")
        assert rows(conn, f"SELECT count(*) FROM {table}") == [[4]]

    def test_a_query_that_is_closed_early_leaves_the_connection_usable(
        self, conn: RaisingConnection
    ) -> None:
        found = conn.query(self.series.format(count=1_000_000))
        assert found is not None
        assert next(found) == [1, "row"]
        found.close()
        found.close()
        with pytest.raises(ClosedError, match="closed"):
            next(found)
        assert rows(conn, "SELECT 1") == [[1]]
        assert conn.stats().queries == 0

    def test_a_query_that_is_dropped_is_closed(self, conn: RaisingConnection) -> None:
        assert next(conn.query(self.series.format(count=1_000_000))) == [1, "row"]
        until(lambda: conn.stats().queries == 0, "the query closed")

    def test_stats_tell_how_many_rows_came_so_far(self, conn: RaisingConnection) -> None:
        before = conn.stats().rows
        with conn.query(self.series.format(count=100_000)) as found:
            for _ in range(30_000):
                next(found)
            assert conn.stats().queries == 1
            assert 30_000 <= conn.stats().rows - before < 100_000

    def test_a_refused_query_raises_with_the_code_of_the_server(
        self, conn: RaisingConnection
    ) -> None:
        with pytest.raises(StatementError) as caught:
            conn.query("SELCT 1")
        assert caught.value.code == self.error_code
        assert rows(conn, "SELECT 1") == [[1]]

    def test_a_query_keeps_its_deadline(self, conn: RaisingConnection) -> None:
        with pytest.raises(STOPPED):
            conn.query(self.slow, timeout=200)
        assert rows(conn, "SELECT 1") == [[1]]
        assert conn.stats().queries == 0

    # many statements

    def test_executemany_writes_all_rows(self, conn: RaisingConnection, table: str) -> None:
        given = [(n, f"name {n}") for n in range(2_500)]
        result = conn.executemany(f"INSERT INTO {table} (id, name) VALUES (?, ?)", given)
        assert result == {"columns": [], "values": [], "affected": 2_500}
        assert rows(conn, f"SELECT id, name FROM {table} ORDER BY id") == [
            list(row) for row in given
        ]

    def test_executemany_without_rows_does_nothing(
        self, conn: RaisingConnection, table: str
    ) -> None:
        assert conn.executemany(f"INSERT INTO {table} (id, name) VALUES (?, ?)", []) is not None
        assert rows(conn, f"SELECT count(*) FROM {table}") == [[0]]

    @pytest.mark.parametrize("wrong", [(7,), (7, "x", "more")])
    def test_executemany_with_a_wrong_row_writes_nothing(
        self, conn: RaisingConnection, table: str, wrong: tuple[Any, ...]
    ) -> None:
        given = [*((n, "x") for n in range(100, 200)), wrong]
        with pytest.raises(StatementError):
            conn.executemany(f"INSERT INTO {table} (id, name) VALUES (?, ?)", given)
        assert rows(conn, f"SELECT count(*) FROM {table}") == [[0]]

    # errors

    def test_a_refused_statement_raises_with_the_code_of_the_server(
        self, conn: RaisingConnection
    ) -> None:
        with pytest.raises(StatementError) as caught:
            conn.exec("SELCT 1")
        assert caught.value.code == self.error_code
        assert rows(conn, "SELECT 1") == [[1]]

    def test_an_object_of_Dial_gives_None_one_line_and_the_reason(
        self, address: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        connection = trunkline.Dial(address)
        assert connection is not None
        with caplog.at_level(logging.WARNING, "trunkline"), connection:
            assert connection.exec("SELCT 1") is None
            lines = [record.getMessage() for record in caplog.records]
            assert len(lines) == 1
            assert "\n" not in lines[0]
            assert (trunkline.last_error() or "no error") in lines[0]
            assert rows(connection, "SELECT 1") == [[1]]

    def test_reading_and_writing_are_refused(self, conn: RaisingConnection) -> None:
        with pytest.raises(Unsupported, match="exec"):
            conn.read(-1)
        with pytest.raises(Unsupported, match="exec"):
            conn.write("x")

    def test_a_closed_object_says_so(self, address: str) -> None:
        connection = trunkline.connect(address)
        connection.close()
        with pytest.raises(ClosedError):
            connection.exec("SELECT 1")

    # time

    def test_a_timeout_stops_the_statement_and_leaves_the_connection_usable(
        self, conn: RaisingConnection
    ) -> None:
        with pytest.raises(STOPPED):
            conn.exec(self.slow, timeout=200)
        assert rows(conn, "SELECT 1") == [[1]]

    def test_waiting_for_ones_turn_counts(self, conn: RaisingConnection) -> None:
        said: list[str] = []
        with ThreadPoolExecutor(1) as pool:
            # On a busy machine a short statement would end before a second statement waits.
            for slow_ms in (1500, 6000, 20_000):
                slow = pool.submit(_code, conn, self.slow, slow_ms)
                while not slow.done() and not any("waited" in text for text in said):
                    said.append(_refusal(conn, "SELECT 1", 100))
                assert slow.result(60) in STOPPED
                if any("waited" in text for text in said):
                    return
        raise AssertionError(f"no statement had to wait: {said}")

    # many at once

    def test_many_threads_use_one_object(self, conn: RaisingConnection) -> None:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: rows(conn, "SELECT ? + 0", n), range(200)))
        assert answers == [[[n]] for n in range(200)]


class ExecContract(StatementContract):
    """The contract of every database with transactions: `StatementContract`, and blocks."""

    def test_a_query_in_a_block_sees_what_the_block_has_written(
        self, conn: RaisingConnection, table: str
    ) -> None:
        with conn.transaction():
            conn.exec(f"INSERT INTO {table} VALUES (1, 'a')")
            found = conn.query(f"SELECT id FROM {table}")
            assert list(found) == [[1]]

    def test_a_query_ends_with_its_block(self, conn: RaisingConnection) -> None:
        with conn.transaction():
            found = conn.query(self.series.format(count=100_000))
            assert found is not None
            next(found)
        with pytest.raises(StatementError, match="over"):
            list(found)
        assert rows(conn, "SELECT 1") == [[1]]

    def test_executemany_in_a_block_is_rolled_back_with_it(
        self, conn: RaisingConnection, table: str
    ) -> None:
        with pytest.raises(ZeroDivisionError), conn.transaction():  # noqa: PT012 (the block is what is tested)
            conn.executemany(f"INSERT INTO {table} (id, name) VALUES (?, ?)", [(1, "a"), (2, "b")])
            raise ZeroDivisionError
        assert rows(conn, f"SELECT count(*) FROM {table}") == [[0]]

    def test_executemany_in_a_block_is_all_or_nothing_too(
        self, conn: RaisingConnection, table: str
    ) -> None:
        given = [*((n, "x") for n in range(2_000)), (5_000, "x", "too many")]
        with conn.transaction():
            conn.exec(f"INSERT INTO {table} VALUES (9999, 'before')")
            with pytest.raises(StatementError):
                conn.executemany(f"INSERT INTO {table} (id, name) VALUES (?, ?)", given)
        assert rows(conn, f"SELECT id FROM {table}") == [[9999]]

    def test_executemany_is_all_or_nothing(self, conn: RaisingConnection, table: str) -> None:
        with pytest.raises(StatementError):
            conn.executemany(
                f"INSERT INTO {table} (id, name) VALUES (?, ?)", [(1, "a"), (2, "b"), (1, "c")]
            )
        assert rows(conn, f"SELECT count(*) FROM {table}") == [[0]]

    def test_a_block_commits(self, conn: RaisingConnection, table: str, address: str) -> None:
        with conn.transaction():
            conn.exec(f"INSERT INTO {table} VALUES (1, 'a')")
        with trunkline.connect(address) as other:
            assert rows(other, f"SELECT id FROM {table}") == [[1]]

    def test_a_block_that_raises_is_rolled_back(self, conn: RaisingConnection, table: str) -> None:
        with pytest.raises(ZeroDivisionError), conn.transaction():  # noqa: PT012 (the block is what is tested)
            conn.exec(f"INSERT INTO {table} VALUES (1, 'a')")
            raise ZeroDivisionError
        assert rows(conn, f"SELECT count(*) FROM {table}") == [[0]]

    def test_blocks_do_not_nest(self, conn: RaisingConnection, table: str) -> None:
        with conn.transaction():
            conn.exec(f"INSERT INTO {table} VALUES (1, 'a')")
            with pytest.raises(Unsupported, match="nest"):
                conn.transaction().__enter__()
        assert rows(conn, f"SELECT count(*) FROM {table}") == [[1]]

    def test_another_thread_waits_for_the_end_of_the_block(
        self, conn: RaisingConnection, table: str
    ) -> None:
        inside, seen = threading.Event(), []

        def other() -> None:
            inside.wait(20)
            seen.append(rows(conn, f"SELECT count(*) FROM {table}"))

        thread = threading.Thread(target=other)
        thread.start()
        with conn.transaction():
            conn.exec(f"INSERT INTO {table} VALUES (1, 'a')")
            inside.set()
            with pytest.raises(OperationTimeout, match="transaction"):
                _in_thread(lambda: conn.exec("SELECT 1", timeout=100))
            conn.exec(f"INSERT INTO {table} VALUES (2, 'b')")
            assert seen == []
        thread.join(20)
        assert seen == [[[2]]]

    def test_a_bare_BEGIN_is_refused_where_others_share(self, conn: RaisingConnection) -> None:
        conn.fd()
        for sql in ("BEGIN", "/* hidden */ begin", "COMMIT", "ROLLBACK"):
            with pytest.raises(StatementError, match="shared"):
                conn.exec(sql)
        assert rows(conn, "SELECT 1") == [[1]]


def _in_thread(call: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(20)


def _code(connection: RaisingConnection, sql: str, timeout: float) -> type[BaseException] | None:
    try:
        connection.exec(sql, timeout=timeout)
    except trunkline.TrunklineError as error:
        return type(error)
    return None


def _refusal(connection: RaisingConnection, sql: str, timeout: float) -> str:
    """The reason why the statement was not answered within the time; "" when it was answered."""
    try:
        connection.exec(sql, timeout=timeout)
    except OperationTimeout as error:
        return str(error)
    except OutcomeUnknown:
        pass
    return ""

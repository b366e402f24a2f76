"""PEP 249 on Trunkline's connections: the same tests on each database, and what sharing adds."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import uuid
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

import trunkline
from tests.servers.clickhouse import ClickHouse
from tests.servers.mariadb import MariaDb
from tests.servers.postgres import Postgres
from tests.support.waiting import until
from trunkline import dbapi
from trunkline.errors import OperationTimeout, StatementError

SPAWN = multiprocessing.get_context("spawn")
WAIT_S = 30.0


class Compliance:
    """`address` is a fixture of the subclass. `conn` and `other` share one database connection."""

    create: ClassVar[str] = (
        "CREATE TABLE {table} (id INTEGER PRIMARY KEY, name VARCHAR(20) NOT NULL)"
    )
    no_table: ClassVar[str | int]
    twice: ClassVar[str | int]

    @pytest.fixture
    def base(self, address: str) -> Iterator[trunkline.Connection]:
        with trunkline.connect(address, linger=0.2) as base:
            yield base

    @pytest.fixture
    def conn(self, base: trunkline.Connection) -> Iterator[dbapi.Connection]:
        with closing(dbapi.connect(base)) as conn:
            yield conn

    @pytest.fixture
    def other(self, base: trunkline.Connection) -> Iterator[dbapi.Connection]:
        with closing(dbapi.connect(handle(base), timeout_ms=10_000)) as other:
            yield other

    @pytest.fixture
    def table(self, base: trunkline.Connection) -> str:
        name = f"d{uuid.uuid4().hex[:12]}"
        base.exec(self.create.format(table=name))
        return name

    # cursors

    def test_a_statement_before_any_has_no_rows(self, conn: dbapi.Connection) -> None:
        cursor = conn.cursor()
        assert (cursor.description, cursor.rowcount, cursor.lastrowid) == (None, -1, None)
        for fetch in (cursor.fetchone, cursor.fetchmany, cursor.fetchall):
            with pytest.raises(dbapi.ProgrammingError, match="no rows to fetch"):
                fetch()

    def test_rows_are_tuples_fetched_in_order(self, conn: dbapi.Connection, table: str) -> None:
        cursor = conn.cursor()
        cursor.executemany(
            f"INSERT INTO {table} VALUES (?, ?)", [(n, f"row {n}") for n in range(10)]
        )
        assert cursor.rowcount == 10
        assert cursor.description is None
        cursor.execute(f"SELECT id, name FROM {table} ORDER BY id")
        assert cursor.rowcount == 10
        assert cursor.fetchone() == (0, "row 0")
        assert cursor.fetchmany() == [(1, "row 1")]
        cursor.arraysize = 2
        assert cursor.fetchmany() == [(2, "row 2"), (3, "row 3")]
        assert cursor.fetchmany(3) == [(4, "row 4"), (5, "row 5"), (6, "row 6")]
        assert cursor.rownumber == 7
        assert next(cursor) == (7, "row 7")
        assert cursor.fetchall() == [(8, "row 8"), (9, "row 9")]
        assert cursor.fetchone() is None
        assert cursor.fetchmany(5) == []
        assert cursor.fetchall() == []
        assert list(cursor) == []

    def test_a_description_has_names_and_type_codes(
        self, conn: dbapi.Connection, table: str
    ) -> None:
        cursor = conn.cursor()
        cursor.execute(f"INSERT INTO {table} VALUES (1, 'one')")
        cursor.execute(f"SELECT id, name, NULL AS missing FROM {table}")
        assert cursor.description is not None
        assert [column[0] for column in cursor.description] == ["id", "name", "missing"]
        assert all(len(column) == 7 for column in cursor.description)
        assert cursor.description[0][1] == dbapi.NUMBER
        assert cursor.description[1][1] == dbapi.STRING
        assert cursor.description[2][1] is None

    def test_an_empty_result_is_still_described(self, conn: dbapi.Connection, table: str) -> None:
        cursor = conn.cursor().execute(f"SELECT id FROM {table}")
        assert cursor.description == [("id", None, None, None, None, None, None)]
        assert cursor.fetchall() == []

    def test_values_are_given_by_question_mark(self, conn: dbapi.Connection, table: str) -> None:
        cursor = conn.cursor()
        cursor.execute(f"INSERT INTO {table} VALUES (?, ?)", (1, "a?b%s'c"))
        cursor.execute(f"INSERT INTO {table} VALUES (?, ?)", [2, "two"])
        assert cursor.rowcount == 1
        cursor.execute(f"SELECT name FROM {table} WHERE id < ? AND name <> '?'", (2,))
        assert cursor.fetchall() == [("a?b%s'c",)]

    @pytest.mark.parametrize("values", ["x", b"x", 5])
    def test_values_that_are_no_sequence_are_refused(
        self, conn: dbapi.Connection, values: Any
    ) -> None:
        with pytest.raises(dbapi.ProgrammingError, match="sequence or a mapping"):
            conn.cursor().execute("SELECT ?", values)

    def test_values_that_cannot_travel_are_refused(self, conn: dbapi.Connection) -> None:
        with pytest.raises(dbapi.ProgrammingError, match="cannot be sent"):
            conn.cursor().execute("SELECT ?", (object(),))
        assert conn.cursor().execute("SELECT 1").fetchall() == [(1,)]

    def test_numbers_of_numpy_are_numbers(self, conn: dbapi.Connection, table: str) -> None:
        cursor = conn.cursor()
        cursor.execute(f"INSERT INTO {table} VALUES (?, ?)", (np.int64(1), "a"))
        cursor.executemany(
            f"INSERT INTO {table} VALUES (?, ?)", [[np.uint8(2), "b"], [np.int32(3), "c"]]
        )
        found = cursor.execute(f"SELECT id FROM {table} WHERE id > ? ORDER BY id", (np.float64(1),))
        assert found.fetchall() == [(2,), (3,)]

    def test_a_wrong_number_of_values_is_refused(self, conn: dbapi.Connection, table: str) -> None:
        with pytest.raises(dbapi.ProgrammingError):
            conn.cursor().execute(f"INSERT INTO {table} VALUES (?, ?)", (1,))

    def test_a_stream_gives_the_same_rows(self, conn: dbapi.Connection, table: str) -> None:
        conn.cursor().executemany(
            f"INSERT INTO {table} VALUES (?, ?)", [(n, "x") for n in range(2000)]
        )
        conn.commit()
        with conn.cursor(stream=True) as cursor:
            cursor.execute(f"SELECT id, name FROM {table} ORDER BY id")
            assert cursor.rowcount == -1
            assert cursor.description is not None
            assert [column[1] for column in cursor.description] == [int, str]
            assert cursor.fetchone() == (0, "x")
            assert cursor.fetchmany(2) == [(1, "x"), (2, "x")]
            assert [row[0] for row in cursor] == list(range(3, 2000))
            cursor.execute(f"SELECT id FROM {table} ORDER BY id")
            assert cursor.fetchone() == (0,)
        cursor = conn.cursor(stream=True)
        assert cursor.execute(f"DELETE FROM {table} WHERE id < 5").rowcount == 5
        assert cursor.execute(f"SELECT count(*) FROM {table}").fetchall() == [(1995,)]

    def test_the_rows_of_a_stream_end_with_its_transaction(
        self, conn: dbapi.Connection, table: str
    ) -> None:
        conn.cursor().executemany(
            f"INSERT INTO {table} VALUES (?, ?)", [(n, "x") for n in range(2000)]
        )
        cursor = conn.cursor(stream=True).execute(f"SELECT id FROM {table}")
        assert len(cursor.fetchmany(50)) == 50
        conn.commit()
        with pytest.raises(dbapi.ProgrammingError, match="given up"):
            cursor.fetchone()
        assert cursor.execute(f"SELECT count(*) FROM {table}").fetchall() == [(2000,)]

    def test_a_closed_cursor_does_nothing_more(self, conn: dbapi.Connection) -> None:
        with conn.cursor() as cursor:
            assert cursor.connection is conn
            cursor.execute("SELECT 1")
        cursor.close()
        with pytest.raises(dbapi.InterfaceError, match="closed"):
            cursor.execute("SELECT 1")
        with pytest.raises(dbapi.InterfaceError, match="closed"):
            cursor.fetchone()

    def test_a_closed_connection_does_nothing_more(self, conn: dbapi.Connection) -> None:
        cursor = conn.cursor()
        conn.close()
        conn.close()
        assert conn.closed
        for act in (
            conn.commit,
            conn.rollback,
            conn.cursor,
            conn.begin,
            cursor.fetchone,
            conn.__enter__,
        ):
            with pytest.raises(dbapi.InterfaceError, match="closed"):
                act()
        cursor.close()

    def test_what_is_optional_or_empty_is_there(self, conn: dbapi.Connection) -> None:
        cursor = conn.cursor()
        cursor.setinputsizes([int])
        cursor.setoutputsize(100)
        cursor.setoutputsize(100, 1)
        assert cursor.executemany("INSERT INTO nowhere VALUES (?)", []).rowcount == 0
        for name in ("Warning", "Error", "IntegrityError", "NotSupportedError"):
            assert getattr(conn, name) is getattr(dbapi, name)

    # errors

    def test_errors_have_their_class_their_code_and_their_cause(
        self, conn: dbapi.Connection, table: str
    ) -> None:
        cursor = conn.cursor()
        with pytest.raises(dbapi.ProgrammingError) as caught:
            cursor.execute("SELECT * FROM nowhere_to_be_found")
        assert caught.value.code == self.no_table
        assert isinstance(caught.value.__cause__, StatementError)
        conn.rollback()
        cursor.execute(f"INSERT INTO {table} VALUES (1, 'a')")
        with pytest.raises(dbapi.IntegrityError) as again:
            cursor.execute(f"INSERT INTO {table} VALUES (1, 'b')")
        assert again.value.code == self.twice
        conn.rollback()
        with pytest.raises(conn.IntegrityError):
            cursor.execute(f"INSERT INTO {table} VALUES (1, NULL)")

    # transactions

    def test_what_is_not_committed_is_undone(self, conn: dbapi.Connection, table: str) -> None:
        cursor = conn.cursor()
        cursor.execute(f"INSERT INTO {table} VALUES (1, 'a')")
        assert conn.in_transaction
        conn.commit()
        assert not conn.in_transaction
        cursor.execute(f"INSERT INTO {table} VALUES (2, 'b')")
        cursor.executemany(f"INSERT INTO {table} VALUES (?, ?)", [(3, "c"), (4, "d")])
        conn.rollback()
        assert cursor.execute(f"SELECT id FROM {table}").fetchall() == [(1,)]
        conn.commit()
        conn.rollback()

    def test_closing_undoes(
        self, conn: dbapi.Connection, other: dbapi.Connection, table: str
    ) -> None:
        conn.cursor().execute(f"INSERT INTO {table} VALUES (1, 'a')")
        conn.close()
        assert other.cursor().execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]

    def test_dropping_undoes(self, base: trunkline.Connection, table: str) -> None:
        dropped = dbapi.connect(base)
        dropped.cursor().execute(f"INSERT INTO {table} VALUES (1, 'a')")
        del dropped
        gc.collect()
        result = base.exec(f"SELECT count(*) FROM {table}", timeout=10_000)
        assert result is not None
        assert result["values"] == [[0]]

    def test_a_with_block_commits_or_rolls_back_and_does_not_close(
        self, conn: dbapi.Connection, table: str
    ) -> None:
        cursor = conn.cursor()
        with conn as same:
            assert same is conn
            cursor.execute(f"INSERT INTO {table} VALUES (1, 'a')")
        with pytest.raises(ZeroDivisionError), conn:  # noqa: PT012 (the block is what is tested)
            cursor.execute(f"INSERT INTO {table} VALUES (2, 'b')")
            raise ZeroDivisionError
        assert cursor.execute(f"SELECT id FROM {table}").fetchall() == [(1,)]

    def test_reads_hold_nothing_and_writes_hold_everything(
        self, conn: dbapi.Connection, base: trunkline.Connection, table: str
    ) -> None:
        conn.cursor().execute(f"SELECT * FROM {table}")
        assert not conn.in_transaction
        base.exec(f"INSERT INTO {table} VALUES (1, 'a')", timeout=5000)
        conn.cursor().execute(f"UPDATE {table} SET name = 'b'")
        with pytest.raises(OperationTimeout, match="transaction"):
            base.exec(f"SELECT * FROM {table}", timeout=100)
        conn.commit()
        assert base.exec(f"SELECT name FROM {table}", timeout=5000) == {
            "columns": ["name"],
            "values": [["b"]],
        }

    def test_begin_takes_reads_in(
        self, conn: dbapi.Connection, other: dbapi.Connection, table: str
    ) -> None:
        conn.begin()
        assert conn.cursor().execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]
        with pytest.raises(dbapi.ProgrammingError, match="begun already"):
            conn.begin()
        assert conn.in_transaction
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(other.cursor().execute, f"SELECT count(*) FROM {table}")
            conn.commit()
            assert waiting.result(WAIT_S).fetchall() == [(0,)]

    def test_transaction_statements_mean_this_connections_transaction(
        self, conn: dbapi.Connection, table: str
    ) -> None:
        cursor = conn.cursor()
        cursor.execute("BEGIN")
        assert conn.in_transaction
        cursor.execute(f"INSERT INTO {table} VALUES (1, 'a')")
        cursor.execute("COMMIT")
        assert not conn.in_transaction
        cursor.execute(f"INSERT INTO {table} VALUES (2, 'b')")
        cursor.execute("ROLLBACK")
        assert cursor.execute(f"SELECT id FROM {table}").fetchall() == [(1,)]

    begins: ClassVar[tuple[str, ...]]
    """`BEGIN` with modes of the database's own."""

    def test_a_begin_may_have_modes(self, conn: dbapi.Connection, table: str) -> None:
        cursor = conn.cursor()
        for n, sql in enumerate(self.begins):
            cursor.execute(sql)
            assert conn.in_transaction, sql
            if "READ ONLY" in sql:
                with pytest.raises(dbapi.Error, match=r"(?i)read.only"):
                    cursor.execute(f"INSERT INTO {table} VALUES (9, 'a')")
                conn.rollback()
            else:
                cursor.execute(f"INSERT INTO {table} VALUES ({n}, 'a')")
                cursor.execute("COMMIT")
            assert not conn.in_transaction
        with pytest.raises(dbapi.Error):
            cursor.execute("BEGIN DEFERRED, WITH CONSISTENT SNAPSHOT")
        assert not conn.in_transaction
        written = sum("READ ONLY" not in sql for sql in self.begins)
        assert cursor.execute(f"SELECT count(*) FROM {table}").fetchall() == [(written,)]

    def test_a_refused_first_statement_holds_nothing(
        self, conn: dbapi.Connection, other: dbapi.Connection, table: str
    ) -> None:
        with pytest.raises(dbapi.ProgrammingError):
            conn.cursor().execute("INSERT INTO nowhere_to_be_found VALUES (1)")
        assert not conn.in_transaction
        with pytest.raises(dbapi.IntegrityError):
            conn.cursor().executemany(f"INSERT INTO {table} VALUES (?, ?)", [(1, "a"), (1, "b")])
        assert not conn.in_transaction
        assert other.cursor().execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]
        conn.begin()
        with pytest.raises(dbapi.ProgrammingError):
            conn.cursor().execute("INSERT INTO nowhere_to_be_found VALUES (1)")
        assert conn.in_transaction

    def test_savepoints_are_part_of_it(self, conn: dbapi.Connection, table: str) -> None:
        cursor = conn.cursor()
        cursor.execute(f"INSERT INTO {table} VALUES (1, 'a')")
        cursor.execute("SAVEPOINT one")
        cursor.execute(f"INSERT INTO {table} VALUES (2, 'b')")
        cursor.execute("ROLLBACK TO SAVEPOINT one")
        conn.commit()
        assert cursor.execute(f"SELECT id FROM {table}").fetchall() == [(1,)]

    def test_autocommit_has_no_transactions(
        self, base: trunkline.Connection, conn: dbapi.Connection, table: str
    ) -> None:
        with closing(dbapi.connect(base, autocommit=True)) as auto:
            auto.cursor().execute(f"INSERT INTO {table} VALUES (1, 'a')")
            assert not auto.in_transaction
            auto.rollback()
            auto.commit()
            assert conn.cursor().execute(f"SELECT id FROM {table}").fetchall() == [(1,)]
            auto.autocommit = False
            auto.cursor().execute(f"INSERT INTO {table} VALUES (2, 'b')")
            with pytest.raises(dbapi.ProgrammingError, match="open"):
                auto.autocommit = True
            auto.rollback()
        assert conn.cursor().execute(f"SELECT count(*) FROM {table}").fetchall() == [(1,)]

    def test_tables_are_made_and_dropped(
        self, conn: dbapi.Connection, other: dbapi.Connection
    ) -> None:
        name = f"d{uuid.uuid4().hex[:12]}"
        cursor = conn.cursor()
        cursor.execute(self.create.format(table=name))
        cursor.execute(f"INSERT INTO {name} VALUES (1, 'a')")
        conn.commit()
        assert other.cursor().execute(f"SELECT id FROM {name}").fetchall() == [(1,)]
        cursor.execute(f"DELETE FROM {name}")
        cursor.execute(f"DROP TABLE {name}")
        conn.commit()
        with pytest.raises(dbapi.ProgrammingError):
            other.cursor().execute(f"SELECT id FROM {name}")

    # sharing

    def test_a_transaction_is_taken_from_thread_to_thread(
        self, conn: dbapi.Connection, table: str
    ) -> None:
        for n in range(3):
            with ThreadPoolExecutor(1) as pool:
                pool.submit(conn.cursor().execute, f"INSERT INTO {table} VALUES ({n}, 'x')").result(
                    WAIT_S
                )
        conn.commit()
        assert conn.cursor().execute(f"SELECT count(*) FROM {table}").fetchall() == [(3,)]

    def test_a_thread_that_would_wait_for_itself_is_told(
        self, conn: dbapi.Connection, other: dbapi.Connection, table: str
    ) -> None:
        conn.cursor().execute(f"INSERT INTO {table} VALUES (1, 'a')")
        with pytest.raises(dbapi.OperationalError, match="wait for itself"):
            other.cursor().execute(f"SELECT * FROM {table}")
        with pytest.raises(dbapi.OperationalError, match="wait for itself"):
            other.cursor().execute(f"INSERT INTO {table} VALUES (2, 'b')")
        conn.commit()
        assert other.cursor().execute(f"SELECT id FROM {table}").fetchall() == [(1,)]

    def test_an_object_of_dial_is_told_too(
        self, conn: dbapi.Connection, base: trunkline.Connection, table: str
    ) -> None:
        """Without a deadline it would wait for ever."""
        conn.cursor().execute(f"INSERT INTO {table} VALUES (1, 'a')")
        with pytest.raises(StatementError, match="wait for itself"):
            base.exec(f"SELECT * FROM {table}")
        with pytest.raises(StatementError, match="wait for itself"):
            base.executemany(f"INSERT INTO {table} VALUES (?, ?)", [(2, "b")])
        if base._about.scheme != "sqlite3":
            assert list(base.query(f"SELECT * FROM {table}") or []) == [], "by a link of its own"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(base.exec, f"SELECT id FROM {table}")
            conn.commit()
            result = waiting.result(WAIT_S)
        assert result is not None
        assert result["values"] == [[1]]
        with trunkline.connect(handle(base)) as third, base.transaction():
            with pytest.raises(StatementError, match="wait for itself"):
                third.exec(f"SELECT * FROM {table}")
            base.exec(f"DELETE FROM {table}")

    def test_a_block_of_the_thread_is_told_too(
        self, conn: dbapi.Connection, base: trunkline.Connection, table: str
    ) -> None:
        with base.transaction(), pytest.raises(dbapi.OperationalError, match="wait for itself"):
            conn.cursor().execute(f"SELECT * FROM {table}")
        assert conn.cursor().execute(f"SELECT * FROM {table}").fetchall() == []

    def test_connections_of_many_threads_and_processes_count_without_loss(
        self, base: trunkline.Connection, table: str
    ) -> None:
        base.exec(f"INSERT INTO {table} VALUES (0, '0')")
        number = handle(base)
        with (
            ProcessPoolExecutor(2, mp_context=SPAWN) as processes,
            ThreadPoolExecutor(2) as threads,
        ):
            jobs = [
                pool.submit(count, number, table, 10)
                for pool in (processes, threads)
                for _ in range(2)
            ]
            for job in jobs:
                job.result(WAIT_S)
        result = base.exec(f"SELECT name FROM {table}")
        assert result is not None
        assert result["values"] == [["40"]]


def count(number: int, table: str, times: int) -> None:
    """Read, add one, write: any statement of another in between would lose a count."""
    with closing(dbapi.connect(number)) as conn:
        for _ in range(times):
            conn.begin()
            cursor = conn.cursor().execute(f"SELECT name FROM {table} WHERE id = 0")
            (name,) = cursor.fetchall()[0]
            cursor.execute(f"UPDATE {table} SET name = ? WHERE id = 0", (str(int(name) + 1),))
            conn.commit()


class TestSqlite(Compliance):
    begins = ("BEGIN IMMEDIATE", "begin exclusive transaction", "BEGIN DEFERRED")
    no_table = "SQLITE_ERROR"
    twice = "SQLITE_CONSTRAINT_PRIMARYKEY"

    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        return f"sqlite3://{tmp_path}/test.db"

    def test_the_last_id_is_told(self, conn: dbapi.Connection, table: str) -> None:
        cursor = conn.cursor().execute(f"INSERT INTO {table} (name) VALUES ('a')")
        assert (cursor.rowcount, cursor.lastrowid) == (1, 1)
        assert cursor.execute(f"INSERT INTO {table} VALUES (7, 'b')").lastrowid == 7
        assert cursor.execute("SELECT 1").lastrowid is None

    def test_values_are_given_by_name(self, conn: dbapi.Connection, table: str) -> None:
        cursor = conn.cursor()
        cursor.execute(f"INSERT INTO {table} VALUES (:id, :name)", {"id": 1, "name": "a"})
        cursor.executemany(f"INSERT INTO {table} VALUES (:n, :n)", [{"n": 2}, {"n": 3}])
        assert cursor.execute(f"SELECT * FROM {table}").fetchall() == [(1, "a"), (2, "2"), (3, "3")]

    def test_a_transaction_that_the_database_ended_asks_for_a_rollback(
        self, conn: dbapi.Connection
    ) -> None:
        cursor = conn.cursor()
        cursor.execute("CREATE TABLE u (a UNIQUE ON CONFLICT ROLLBACK)")
        conn.commit()
        cursor.execute("INSERT INTO u VALUES (1)")
        with pytest.raises(dbapi.IntegrityError):
            cursor.execute("INSERT INTO u VALUES (1)")
        with pytest.raises(dbapi.OperationalError, match="over") as caught:
            cursor.execute("INSERT INTO u VALUES (2)")
        assert caught.value.code == "TRANSACTION_OVER"
        conn.rollback()
        cursor.execute("INSERT INTO u VALUES (3)")
        conn.commit()
        assert cursor.execute("SELECT a FROM u").fetchall() == [(3,)]

    def test_a_commit_that_is_refused_is_an_error_and_an_end(self, conn: dbapi.Connection) -> None:
        cursor = conn.cursor()
        cursor.execute("PRAGMA foreign_keys = 1")
        cursor.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        cursor.execute("CREATE TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
        conn.commit()
        cursor.execute("INSERT INTO child VALUES (7)")
        with pytest.raises(dbapi.IntegrityError, match="FOREIGN KEY"):
            conn.commit()
        assert not conn.in_transaction
        assert cursor.execute("SELECT count(*) FROM child").fetchall() == [(0,)]

    def test_a_statement_that_takes_too_long_is_an_operational_error(
        self, base: trunkline.Connection
    ) -> None:
        endless = (
            "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r"
        )
        with closing(dbapi.connect(base, timeout_ms=200)) as conn:
            with pytest.raises(dbapi.OperationalError) as caught:
                conn.cursor().execute(endless)
            assert isinstance(caught.value.__cause__, OperationTimeout)
            assert conn.cursor().execute("SELECT 1").fetchall() == [(1,)]

    def test_a_turn_that_does_not_come_is_an_operational_error(
        self, base: trunkline.Connection, table: str
    ) -> None:
        inside, done = threading.Event(), threading.Event()

        def hold() -> None:
            with base.transaction():
                inside.set()
                done.wait(WAIT_S)

        with (
            closing(dbapi.connect(handle(base), timeout_ms=100)) as conn,
            ThreadPoolExecutor(1) as pool,
        ):
            holding = pool.submit(hold)
            assert inside.wait(WAIT_S)
            with pytest.raises(dbapi.OperationalError, match="another holder's transaction"):
                conn.cursor().execute(f"INSERT INTO {table} VALUES (1, 'a')")
            assert not conn.in_transaction
            done.set()
            holding.result(WAIT_S)
            conn.cursor().execute(f"INSERT INTO {table} VALUES (1, 'a')")
            conn.commit()

    def test_a_killed_worker_is_an_error_in_a_transaction_and_none_between(
        self, base: trunkline.Connection, conn: dbapi.Connection, table: str
    ) -> None:
        cursor = conn.cursor()
        cursor.execute(f"INSERT INTO {table} VALUES (1, 'a')")
        kill(base)
        with pytest.raises(dbapi.OperationalError):
            cursor.execute(f"INSERT INTO {table} VALUES (2, 'b')")
        conn.rollback()
        assert cursor.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]
        kill(base)
        assert cursor.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]

    def test_a_forked_child_is_in_no_transaction(self, conn: dbapi.Connection, table: str) -> None:
        conn.cursor().execute(f"INSERT INTO {table} VALUES (1, 'a')")
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # 3.12 and later, about the threads here
            pid = os.fork()
        if pid == 0:
            inside = conn.in_transaction
            conn.close()
            os._exit(1 if inside else 0)
        until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, "the child ended")
        conn.cursor().execute(f"INSERT INTO {table} VALUES (2, 'b')")
        conn.commit()
        assert conn.cursor().execute(f"SELECT count(*) FROM {table}").fetchall() == [(2,)]

    def test_what_sqlite_runs_outside_of_transactions_alone_begins_none(
        self, conn: dbapi.Connection, table: str, tmp_path: Path
    ) -> None:
        cursor = conn.cursor()
        cursor.execute("ATTACH ? AS more", (f"{tmp_path}/more.db",))
        cursor.execute("VACUUM")
        cursor.execute("DETACH more")
        assert not conn.in_transaction
        cursor.execute('SELECT \'INTO\', "for update" FROM (SELECT 1 AS "for update") -- ; DELETE')
        assert not conn.in_transaction

    def test_there_are_no_procedures(self, conn: dbapi.Connection) -> None:
        with pytest.raises(dbapi.NotSupportedError, match="procedures"):
            conn.cursor().callproc("f")
        assert not conn.in_transaction

    def test_all_result_sets_of_a_text_come_in_order(
        self, conn: dbapi.Connection, base: trunkline.Connection
    ) -> None:
        cursor = conn.cursor().execute("SELECT 1 AS a; SELECT 2 AS b, 3 AS c; SELECT 4 WHERE 0")
        assert sets(cursor) == [[(1,)], [(2, 3)], []]
        conn.commit()
        assert base.exec("SELECT 1 AS a; SELECT 2 AS b") == {
            "columns": ["a"],
            "values": [[1]],
            "more": [{"columns": ["b"], "values": [[2]]}],
        }


class TestPostgres(Compliance):
    begins = (
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "START TRANSACTION READ ONLY",
        "BEGIN READ WRITE",
    )
    no_table = "42P01"
    twice = "23505"

    @pytest.fixture
    def address(self, postgres: Postgres) -> str:
        return f"postgres://u:p@127.0.0.1:{postgres.port}/postgres?sslmode=disable"

    def test_numbered_placeholders_do_too(self, conn: dbapi.Connection) -> None:
        assert conn.cursor().execute("SELECT $2, $1", ("a", "b")).fetchall() == [("b", "a")]

    def test_a_function_that_writes_or_locks_is_in_the_transaction(
        self, conn: dbapi.Connection, table: str
    ) -> None:
        cursor = conn.cursor()
        book = f"book_{table}"
        cursor.execute(
            f"CREATE FUNCTION {book}(n int) RETURNS int LANGUAGE sql"
            f" AS $$ INSERT INTO {table} VALUES (n, 'a') RETURNING id $$"
        )
        conn.commit()
        try:
            assert cursor.execute(f"SELECT {book}(1)").fetchall() == [(1,)]
            conn.rollback()
            assert cursor.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]
            assert not conn.in_transaction
            cursor.execute("SELECT set_config('trunkline.test', 'x', true)")
            assert cursor.execute("SELECT current_setting('trunkline.test')").fetchall() == [("x",)]
            conn.rollback()
            cursor.execute("SELECT pg_advisory_xact_lock(77)")
            held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77"
            assert cursor.execute(held).fetchall() == [(1,)]
            conn.rollback()
        finally:
            conn.rollback()
            cursor.execute(f"DROP FUNCTION {book}(int)")
            conn.commit()

    def test_a_plain_set_begins_no_transaction(
        self, conn: dbapi.Connection, base: trunkline.Connection
    ) -> None:
        cursor = conn.cursor()
        for setting in ("SET application_name = 'mine; LOCAL'", "SET TIME ZONE 'UTC'", "RESET ALL"):
            cursor.execute(setting)
            assert not conn.in_transaction
            assert base.exec("SELECT 1", timeout=10_000)
        cursor.execute("SET SESSION application_name = 'mine'")
        shown = cursor.execute("SHOW application_name").fetchall()
        cursor.execute("RESET application_name")
        assert shown == [("mine",)]

    @pytest.mark.parametrize(
        "setting",
        ["SET LOCAL work_mem = '1MB'", "SET TRANSACTION READ ONLY", "SET CONSTRAINTS ALL DEFERRED"],
    )
    def test_what_is_set_for_a_transaction_begins_one(
        self, conn: dbapi.Connection, setting: str
    ) -> None:
        cursor = conn.cursor()
        cursor.execute(setting)
        assert conn.in_transaction
        shown = cursor.execute(
            "SELECT current_setting('work_mem'), current_setting('transaction_read_only')"
        )
        found = shown.fetchall()
        conn.rollback()
        after = cursor.execute(
            "SELECT current_setting('work_mem'), current_setting('transaction_read_only')"
        ).fetchall()
        assert not conn.in_transaction
        assert after != [("1MB", "on")]
        assert (found != after) is ("CONSTRAINTS" not in setting)

    def test_values_have_their_types(self, conn: dbapi.Connection) -> None:
        cursor = conn.cursor().execute(
            "SELECT 1.50, now(), 'x'::bytea, ARRAY[1, 2], '{\"a\": 1}'::jsonb"
        )
        row = cursor.fetchone()
        assert row is not None
        assert (row[0], row[2], row[3], row[4]) == (Decimal("1.50"), b"x", [1, 2], {"a": 1})
        assert cursor.description is not None
        codes = [column[1] for column in cursor.description]
        assert codes[:3] == [dbapi.NUMBER, dbapi.DATETIME, dbapi.BINARY]

    def test_a_failed_transaction_takes_nothing_more_until_its_rollback(
        self, conn: dbapi.Connection, table: str
    ) -> None:
        cursor = conn.cursor()
        cursor.execute(f"INSERT INTO {table} VALUES (1, 'a')")
        with pytest.raises(dbapi.DataError) as caught:
            cursor.execute("SELECT 1 / 0")
        assert caught.value.code == "22012"
        with pytest.raises(dbapi.InternalError):
            cursor.execute("SELECT 1")
        with pytest.raises(dbapi.Error):
            conn.commit()
        assert not conn.in_transaction
        assert cursor.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]

    def test_each_transaction_may_begin_with_a_statement(
        self, conn: dbapi.Connection, table: str
    ) -> None:
        conn.begins_with = "SET TRANSACTION READ ONLY"
        with pytest.raises(dbapi.InternalError, match="read-only"):
            conn.cursor().execute(f"INSERT INTO {table} VALUES (1, 'a')")
        conn.rollback()
        conn.cursor().execute("SELECT 1")
        assert conn.in_transaction
        conn.rollback()
        conn.begins_with = "nonsense"
        with pytest.raises(dbapi.ProgrammingError):
            conn.cursor().execute("SELECT 1")
        assert not conn.in_transaction

    def test_all_result_sets_of_a_text_come_in_order(self, conn: dbapi.Connection) -> None:
        assert sets(conn.cursor().execute("SELECT 1 AS a; SELECT 2 AS b, 3 AS c")) == [
            [(1,)],
            [(2, 3)],
        ]

    def test_procedures_and_functions_are_called(self, conn: dbapi.Connection) -> None:
        name, cursor = f"p{uuid.uuid4().hex[:12]}", conn.cursor()
        cursor.execute(
            f"CREATE PROCEDURE {name}(a INT, INOUT b TEXT, OUT c TIMESTAMPTZ) LANGUAGE plpgsql"
            " AS $$BEGIN b := b || a; c := '2024-01-31 00:00:00+00'; END$$"
        )
        cursor.execute(
            f"CREATE FUNCTION {name}f(n INT) RETURNS SETOF INT LANGUAGE sql AS 'VALUES (n), (9)'"
        )
        conn.commit()
        try:
            for autocommit in (False, True):
                conn.autocommit = autocommit
                assert cursor.callproc(name, (1, "x", None)) == [
                    1,
                    "x1",
                    datetime(2024, 1, 31, tzinfo=UTC),
                ]
                assert cursor.description is None
                assert cursor.callproc(f"public.{name}f", [1]) == [1]
                assert sorted(cursor.fetchall()) == [(1,), (9,)]
                conn.commit()
        finally:
            conn.rollback()
            cursor.execute(f"DROP PROCEDURE {name}; DROP FUNCTION {name}f")
            conn.autocommit = False


class TestMysql(Compliance):
    begins = ("START TRANSACTION READ ONLY", "START TRANSACTION WITH CONSISTENT SNAPSHOT")
    no_table = 1146
    twice = 1062

    @pytest.fixture
    def address(self, mariadb: MariaDb) -> str:
        return f"mysql://u:p@tcp(127.0.0.1:{mariadb.port})/t"

    def test_the_last_id_is_told(self, conn: dbapi.Connection) -> None:
        name = f"d{uuid.uuid4().hex[:12]}"
        cursor = conn.cursor()
        cursor.execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY AUTO_INCREMENT, name TEXT)")
        cursor.execute(f"INSERT INTO {name} (name) VALUES ('a')")
        assert cursor.lastrowid == 1
        conn.commit()
        cursor.execute(f"DROP TABLE {name}")

    def test_a_function_that_writes_is_in_the_transaction(
        self, conn: dbapi.Connection, table: str
    ) -> None:
        cursor, book = conn.cursor(), f"book_{table}"
        cursor.execute(
            f"CREATE FUNCTION {book}(n INT) RETURNS INT MODIFIES SQL DATA"
            f" BEGIN INSERT INTO {table} VALUES (n, 'a'); RETURN n; END"
        )
        try:
            assert cursor.execute(f"SELECT {book}(1)").fetchall() == [(1,)]
            assert conn.in_transaction
            conn.rollback()
            assert cursor.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]
        finally:
            conn.rollback()
            cursor.execute(f"DROP FUNCTION {book}")
            conn.commit()

    def test_what_a_transaction_is_to_be_like_may_be_its_first_statement(
        self, conn: dbapi.Connection, base: trunkline.Connection, address: str, table: str
    ) -> None:
        cursor = conn.cursor()
        with closing(dbapi.connect(address)) as writer:
            for settings in (
                ["SET TRANSACTION ISOLATION LEVEL READ COMMITTED"],
                ["/* why */ set @@tx_isolation = 'READ-COMMITTED'", "SET TRANSACTION READ ONLY"],
            ):
                for setting in settings:
                    cursor.execute(setting)
                assert conn.in_transaction
                count = f"SELECT count(*) FROM {table}"
                before = cursor.execute(count).fetchall()[0][0]
                writer.cursor().execute(f"INSERT INTO {table} VALUES ({before + 1}, 'a')")
                writer.commit()
                assert cursor.execute(count).fetchall() == [(before + 1,)]
                with pytest.raises(dbapi.Error, match="in progress"):
                    cursor.execute(settings[0])
                assert conn.in_transaction
                conn.rollback()
        with pytest.raises(dbapi.ProgrammingError):
            cursor.execute("SET TRANSACTION ISOLATION LEVEL NONE OF THEM")
        assert not conn.in_transaction
        conn.begins_with = "SET TRANSACTION READ ONLY"
        with pytest.raises(dbapi.Error, match="READ ONLY"):
            cursor.execute(f"INSERT INTO {table} VALUES (9, 'a')")
        conn.rollback()
        conn.begins_with = None
        with base.transaction():
            base.exec("SET TRANSACTION READ ONLY")
            with pytest.raises(StatementError, match="READ ONLY"):
                base.exec(f"INSERT INTO {table} VALUES (9, 'a')")
        cursor.execute(f"INSERT INTO {table} VALUES (9, 'a')")

    def test_a_plain_set_and_use_begin_no_transaction(
        self, conn: dbapi.Connection, base: trunkline.Connection, table: str
    ) -> None:
        cursor = conn.cursor()
        for setting in ("SET @x = CONCAT('a', 'b')", "SET SESSION sql_warnings = 0", "USE t"):
            cursor.execute(setting)
            assert not conn.in_transaction
            assert base.exec("SELECT 1", timeout=10_000)
        assert cursor.execute("SELECT @x").fetchall() == [("ab",)]
        cursor.execute(
            f"SET STATEMENT max_statement_time = 60 FOR INSERT INTO {table} VALUES (1, 'a')"
        )
        assert conn.in_transaction
        conn.rollback()
        assert cursor.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]

    def test_a_definition_commits_what_was_open_as_mysql_does(
        self, conn: dbapi.Connection, table: str
    ) -> None:
        cursor = conn.cursor()
        cursor.execute(f"INSERT INTO {table} VALUES (1, 'a')")
        cursor.execute(f"ALTER TABLE {table} ADD COLUMN more INTEGER")
        assert not conn.in_transaction
        conn.rollback()
        assert cursor.execute(f"SELECT id, more FROM {table}").fetchall() == [(1, None)]

    def test_a_procedure_gives_all_its_result_sets_and_its_parameters(
        self, conn: dbapi.Connection, base: trunkline.Connection
    ) -> None:
        name, cursor = f"p{uuid.uuid4().hex[:12]}", conn.cursor()
        cursor.execute(
            f"CREATE PROCEDURE {name}() BEGIN SELECT 1 AS a; DO 1; SELECT 2 AS b, 3 AS c; END"
        )
        cursor.execute(
            f"CREATE PROCEDURE {name}o(n INT, INOUT s TEXT, OUT m DECIMAL(30,10), OUT d DATETIME(6))"
            " BEGIN SELECT n AS n; SET s = CONCAT(s, n), m = n / 4,"
            " d = '2024-01-31 01:02:03.5'; SELECT s; END"
        )
        try:
            for autocommit in (False, True):
                conn.autocommit = autocommit
                assert cursor.callproc(name) == []
                assert sets(cursor) == [[(1,)], [(2, 3)]]
                assert cursor.nextset() is None
                found = cursor.callproc(f"t.{name}o", (7, "x", None, None))
                assert found == [7, "x7", Decimal("1.75"), datetime(2024, 1, 31, 1, 2, 3, 500_000)]
                assert sets(cursor) == [[(7,)], [("x7",)]]
                with pytest.raises(dbapi.Error):
                    cursor.callproc(f"{name}o", (7,))
                assert conn.in_transaction is not autocommit
                conn.commit()
                with pytest.raises(dbapi.Error):
                    cursor.callproc("nowhere", (7,))
                assert not conn.in_transaction
                with pytest.raises(dbapi.ProgrammingError, match="identifier"):
                    cursor.callproc("p(); DROP TABLE t")
            found = base.exec(f"CALL {name}()")
            assert found is not None
            assert (found["values"], found["more"]) == (
                [[1]],
                [{"columns": ["b", "c"], "values": [[2, 3]]}],
            )
        finally:
            conn.rollback()
            conn.autocommit = False
            cursor.execute(f"DROP PROCEDURE {name}")
            cursor.execute(f"DROP PROCEDURE {name}o")

    def test_an_update_tells_what_it_found_beside_what_it_changed(
        self, conn: dbapi.Connection, base: trunkline.Connection, table: str
    ) -> None:
        base.exec(f"INSERT INTO {table} VALUES (1, 'a'), (2, 'b')")
        found = base.exec(f"UPDATE {table} SET name = 'a'")
        assert found is not None
        assert (found["affected"], found["matched"]) == (1, 2)


class TestClickHouse:
    """Without transactions, so most of the above does not apply."""

    @pytest.fixture
    def base(self, clickhouse: ClickHouse) -> Iterator[trunkline.Connection]:
        address = f"clickhouse://u:p@127.0.0.1:{clickhouse.port}/default"
        with trunkline.connect(address, linger=0.2) as base:
            yield base

    @pytest.fixture
    def conn(self, base: trunkline.Connection) -> Iterator[dbapi.Connection]:
        with closing(dbapi.connect(base)) as conn:
            yield conn

    @pytest.fixture
    def table(self, base: trunkline.Connection) -> str:
        name = f"d{uuid.uuid4().hex[:12]}"
        base.exec(f"CREATE TABLE {name} (id Int32, name String) ENGINE = Memory")
        return name

    def test_what_is_written_stays(self, conn: dbapi.Connection, table: str) -> None:
        cursor = conn.cursor()
        cursor.execute(f"INSERT INTO {table} VALUES (?, ?)", (1, "a"))
        cursor.executemany(f"INSERT INTO {table} VALUES (?, ?)", [(2, "b"), (np.int32(3), "c")])
        assert not conn.in_transaction
        conn.commit()
        with pytest.raises(dbapi.NotSupportedError, match="no transactions"):
            conn.rollback()
        with pytest.raises(dbapi.NotSupportedError, match="no transactions"):
            conn.begin()
        with pytest.raises(ZeroDivisionError), conn:
            raise ZeroDivisionError
        cursor.execute(f"SELECT id, name FROM {table} WHERE id > ? ORDER BY id", (1,))
        assert cursor.fetchall() == [(2, "b"), (3, "c")]
        assert cursor.description is not None
        assert [column[1] for column in cursor.description] == [dbapi.NUMBER, dbapi.STRING]

    def test_a_stream_gives_the_same_rows(self, conn: dbapi.Connection) -> None:
        with conn.cursor(stream=True) as cursor:
            cursor.execute("SELECT number FROM system.numbers LIMIT 100000")
            assert cursor.fetchmany(2) == [(0,), (1,)]
            assert sum(1 for _ in cursor) == 99_998
            cursor.execute("SELECT number FROM system.numbers")
            assert cursor.fetchone() == (0,)
        assert conn.cursor().execute("SELECT 1").fetchall() == [(1,)]

    def test_settings_and_functions_run(self, conn: dbapi.Connection) -> None:
        cursor = conn.cursor()
        cursor.execute("SET max_threads = 1")
        cursor.execute("USE default")
        assert cursor.execute("SELECT currentDatabase(), ';'").fetchall() == [("default", ";")]
        assert not conn.in_transaction

    def test_errors_have_their_class_and_their_code(self, conn: dbapi.Connection) -> None:
        cursor = conn.cursor()
        for sql, kind, code in (
            ("SELECT * FROM nowhere_to_be_found", dbapi.ProgrammingError, 60),
            ("SELEC 1", dbapi.ProgrammingError, 62),
            ("SELECT toUInt8('x')", dbapi.DataError, 6),
        ):
            with pytest.raises(kind) as caught:
                cursor.execute(sql)
            assert caught.value.code == code

    @pytest.mark.filterwarnings("ignore:pandas only supports SQLAlchemy:UserWarning")
    def test_pandas_reads(self, conn: dbapi.Connection, table: str) -> None:
        conn.cursor().executemany(
            f"INSERT INTO {table} VALUES (?, ?)", [(n, "x") for n in range(10)]
        )
        frame = pd.read_sql(f"SELECT * FROM {table} WHERE id >= ?", conn, params=(5,))
        assert (len(frame), list(frame.columns)) == (5, ["id", "name"])


# connecting


def test_an_address_is_dialled_and_closed_with_its_connection(tmp_path: Path) -> None:
    conn = dbapi.connect(f"sqlite3://{tmp_path}/test.db?_journal_mode=WAL", linger=0.2)
    assert "test.db" in repr(conn)
    pid = conn._link.stats().pid
    assert pid
    conn.close()
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists(), "the worker ended")


def test_a_connection_object_stays_open(tmp_path: Path) -> None:
    with trunkline.connect("sqlite3://:memory:") as base:
        base.exec("CREATE TABLE t (a)")
        with closing(dbapi.connect(base)) as conn:
            conn.cursor().execute("INSERT INTO t VALUES (1)")
            conn.commit()
        assert base.exec("SELECT a FROM t") == {"columns": ["a"], "values": [[1]]}


def test_an_object_of_dial_will_do_too() -> None:
    base = trunkline.Dial("sqlite3://:memory:")
    assert base is not None
    with closing(dbapi.connect(base)) as conn, pytest.raises(dbapi.ProgrammingError):
        conn.cursor().execute("nonsense")
    base.close()


def test_a_closed_object_names_nothing() -> None:
    base = trunkline.Dial("sqlite3://:memory:")
    assert base is not None
    base.close()
    with pytest.raises(dbapi.OperationalError, match="ended or was closed"):
        dbapi.connect(base)


@pytest.mark.parametrize(
    ("database", "kind"),
    [
        ("nosuch://x", dbapi.InterfaceError),
        ("sqlite3:///no/such/folder/x.db", dbapi.OperationalError),
        (1, dbapi.OperationalError),
        ("udp://127.0.0.1:9", dbapi.InterfaceError),
    ],
)
def test_what_cannot_be_opened_says_so(database: str | int, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        dbapi.connect(database)


def test_a_timeout_is_above_zero() -> None:
    with pytest.raises(ValueError, match="above zero"):
        dbapi.connect("sqlite3://:memory:", timeout_ms=0)


def sets(cursor: dbapi.Cursor) -> list[list[tuple[Any, ...]]]:
    """The rows of all result sets of the last statement."""
    found = [cursor.fetchall()]
    while cursor.nextset():
        found.append(cursor.fetchall())
    return found


def handle(connection: trunkline.Connection) -> int:
    number = connection.fd()
    assert number
    return number


def kill(connection: trunkline.Connection) -> None:
    pid = connection.stats().pid
    assert pid
    os.kill(pid, 9)
    until(lambda: connection.stats().pid not in (pid, None), "another worker took over")

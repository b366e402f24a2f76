"""Transactions on a shared connection: exclusive, in turn, and rolled back whatever happens to the holder."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection as PipeEnd
from pathlib import Path
from typing import Any

import pytest

import trunkline
from tests.support.statements import rows
from tests.support.stopping import stop
from trunkline import dbapi
from trunkline.errors import ClosedError, OperationTimeout, OutcomeUnknown, StatementError
from trunkline.proxy.connection import Connection

SPAWN = multiprocessing.get_context("spawn")
WAIT_S = 30.0


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Connection]:
    with trunkline.connect(f"sqlite3://{tmp_path}/test.db", linger=0.2) as connection:
        connection.exec("CREATE TABLE t (who, n)")
        yield connection


class Child:
    """A process that runs `body(connection, pipe)` on a shared handle."""

    def __init__(self, body: Callable[[Connection, PipeEnd], None], handle: int) -> None:
        self.pipe, end = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_child, args=(body, handle, end))
        self.process.start()
        end.close()

    def said(self) -> Any:
        assert self.pipe.poll(WAIT_S), "the child said nothing"
        return self.pipe.recv()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is not None:
            self.process.kill()
        self.process.join(WAIT_S)
        self.pipe.close()
        assert self.process.exitcode is not None
        self.process.close()


def _child(body: Callable[[Connection, PipeEnd], None], handle: int, pipe: PipeEnd) -> None:
    with trunkline.connect(handle) as connection:
        body(connection, pipe)


def _hold(connection: Connection, pipe: PipeEnd) -> None:
    """Hold a transaction until told to end it."""
    with connection.transaction():
        connection.exec("INSERT INTO t VALUES ('child', 1)")
        pipe.send("inside")
        pipe.recv()
        connection.exec("INSERT INTO t VALUES ('child', 2)")
    pipe.send("done")


def _blocks(connection: Connection, pipe: PipeEnd) -> None:
    """Blocks back to back: read, think, write. Any statement in between would lose a count."""
    pipe.send("ready")
    pipe.recv()
    for _ in range(25):
        with connection.transaction():
            (n,) = rows(connection, "SELECT n FROM t WHERE who = 'count'")[0]
            rows(connection, "SELECT count(*) FROM t")
            connection.exec("UPDATE t SET n = ? WHERE who = 'count'", n + 1)
    pipe.send("done")


def test_blocks_of_two_processes_exclude_each_other(conn: Connection) -> None:
    conn.exec("INSERT INTO t VALUES ('count', 0)")
    with Child(_blocks, handle(conn)) as one, Child(_blocks, handle(conn)) as two:
        assert (one.said(), two.said()) == ("ready", "ready")
        one.pipe.send("go")
        two.pipe.send("go")
        assert (one.said(), two.said()) == ("done", "done")
    assert rows(conn, "SELECT n FROM t") == [[50]]


def test_others_wait_for_the_end_or_their_deadline(conn: Connection) -> None:
    with Child(_hold, handle(conn)) as child, ThreadPoolExecutor(1) as pool:
        assert child.said() == "inside"
        with pytest.raises(OperationTimeout, match="another holder's transaction"):
            conn.exec("SELECT 1", timeout=100)
        with pytest.raises(OperationTimeout), conn.transaction(timeout_ms=100):
            pytest.fail("the other's transaction is open")
        waiting = pool.submit(rows, conn, "SELECT n FROM t")
        child.pipe.send("go on")
        assert child.said() == "done"
        assert waiting.result(WAIT_S) == [[1], [2]]


def test_a_holder_that_is_killed_is_rolled_back_and_the_next_goes_on(conn: Connection) -> None:
    with Child(_hold, handle(conn)) as child, ThreadPoolExecutor(1) as pool:
        assert child.said() == "inside"
        waiting = pool.submit(_block, conn)
        assert child.process.pid
        os.kill(child.process.pid, signal.SIGKILL)
        waiting.result(WAIT_S)
    assert rows(conn, "SELECT who FROM t") == [["main"]]


def _block(connection: Connection) -> None:
    with connection.transaction():
        connection.exec("INSERT INTO t VALUES ('main', 1)")


def test_no_holder_starves_while_another_begins_again_and_again(conn: Connection) -> None:
    stop = threading.Event()
    again = trunkline.connect(handle(conn))

    def greedy() -> int:
        count = 0
        while not stop.is_set():
            _block(again)
            count += 1
        return count

    with ThreadPoolExecutor(1) as pool, again:
        greed = pool.submit(greedy)
        try:
            for _ in range(30):
                conn.exec("SELECT 1", timeout=10_000)
                _block(conn)
        finally:
            stop.set()
        assert greed.result(WAIT_S) > 0


def test_a_bare_transaction_on_an_unshared_connection_works(conn: Connection) -> None:
    conn.exec("BEGIN")
    conn.exec("INSERT INTO t VALUES ('a', 1)")
    conn.exec("ROLLBACK")
    conn.exec("BEGIN IMMEDIATE")
    conn.exec("INSERT INTO t VALUES ('b', 2)")
    conn.exec("COMMIT")
    assert rows(conn, "SELECT who FROM t") == [["b"]]


def test_a_bare_transaction_keeps_out_those_who_come_later(conn: Connection) -> None:
    conn.exec("BEGIN")
    conn.exec("INSERT INTO t VALUES ('a', 1)")
    with trunkline.connect(handle(conn)) as other:
        with pytest.raises(OperationTimeout, match="transaction"):
            other.exec("INSERT INTO t VALUES ('other', 1)", timeout=100)
        conn.exec("ROLLBACK")
        other.exec("INSERT INTO t VALUES ('other', 2)")
    assert rows(conn, "SELECT n FROM t") == [[2]]


def test_a_savepoint_is_a_transaction_too(conn: Connection) -> None:
    handle(conn)
    with pytest.raises(StatementError, match="shared"):
        conn.exec("SAVEPOINT one")
    with conn.transaction():
        conn.exec("INSERT INTO t VALUES ('kept', 1)")
        conn.exec("SAVEPOINT one")
        conn.exec("INSERT INTO t VALUES ('undone', 2)")
        conn.exec("ROLLBACK TO one")
        conn.exec("RELEASE one")
        with pytest.raises(StatementError, match="block"):
            conn.exec("COMMIT")
    assert rows(conn, "SELECT who FROM t") == [["kept"]]


def test_a_transaction_that_the_database_ended_runs_nothing_more(conn: Connection) -> None:
    conn.exec("CREATE TABLE u (a UNIQUE ON CONFLICT ROLLBACK)")
    with pytest.raises(StatementError, match="over"), conn.transaction():  # noqa: PT012 (the block is what is tested)
        conn.exec("INSERT INTO u VALUES (1)")
        with pytest.raises(StatementError, match="UNIQUE"):
            conn.exec("INSERT INTO u VALUES (1)")
        with pytest.raises(StatementError) as caught:
            conn.exec("INSERT INTO u VALUES (2)")
        assert caught.value.code == "TRANSACTION_OVER"
    assert rows(conn, "SELECT count(*) FROM u") == [[0]]


def test_a_commit_that_is_refused_is_rolled_back(conn: Connection) -> None:
    conn.exec("PRAGMA foreign_keys = 1")
    conn.exec("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
    conn.exec("CREATE TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(StatementError, match="FOREIGN KEY"), conn.transaction():
        conn.exec("INSERT INTO child VALUES (7)")
    assert rows(conn, "SELECT count(*) FROM child") == [[0]]
    _block(conn)


def test_an_interrupt_while_waiting_to_begin_leaves_nothing_behind(conn: Connection) -> None:
    """Ctrl-C comes as an exception in the middle of the wait."""
    other = trunkline.connect(handle(conn))
    main, before = threading.get_ident(), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with other, other.transaction():
            timer = threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt), conn.transaction():
                pytest.fail("the other's transaction is open")
            timer.join(WAIT_S)
    finally:
        signal.signal(signal.SIGINT, before)
    again = trunkline.connect(handle(conn))
    with again:
        assert rows(again, "SELECT count(*) FROM t") == [[0]]


def test_closing_in_the_block_rolls_back(conn: Connection) -> None:
    other = trunkline.connect(handle(conn))
    with pytest.raises(ClosedError), other.transaction():  # noqa: PT012 (the block is what is tested)
        other.exec("INSERT INTO t VALUES ('other', 1)")
        other.close()
    assert rows(conn, "SELECT count(*) FROM t") == [[0]]


def test_a_child_forked_in_the_block_does_not_end_it(conn: Connection) -> None:
    block = conn.transaction()
    with block:
        conn.exec("INSERT INTO t VALUES ('parent', 1)")
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # 3.12 and later, about the threads here
            pid = os.fork()
        if pid == 0:
            try:
                block.__exit__(None, None, None)
            finally:
                os._exit(0)
        assert _ended(pid)
        conn.exec("INSERT INTO t VALUES ('parent', 2)")
    assert rows(conn, "SELECT n FROM t") == [[1], [2]]


def _ended(pid: int) -> bool:
    limit = time.monotonic() + WAIT_S
    while time.monotonic() < limit:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
    return False


def handle(connection: Connection) -> int:
    number = connection.fd()
    assert number
    return number


def test_a_transaction_that_a_stopped_worker_hears_of_too_late_does_not_begin(
    conn: Connection,
) -> None:
    pid = conn.stats().pid
    assert pid is not None
    stop(pid)
    try:
        for _ in range(3):
            with pytest.raises(OperationTimeout):
                conn.transaction(200).__enter__()
    finally:
        os.kill(pid, signal.SIGCONT)
    with trunkline.connect(handle(conn)) as other:
        _block(other)
        assert rows(conn, "SELECT who FROM t") == [["main"]]


def test_a_commit_that_a_stopped_worker_does_not_answer_is_told_as_unknown(
    conn: Connection,
) -> None:
    pid = conn.stats().pid
    assert pid is not None
    block = conn.transaction(300)
    block.__enter__()
    conn.exec("INSERT INTO t VALUES ('main', 1)")
    stop(pid)
    try:
        with pytest.raises(OutcomeUnknown):
            block.__exit__(None, None, None)
    finally:
        os.kill(pid, signal.SIGCONT)
    with trunkline.connect(handle(conn)) as other:
        assert rows(other, "SELECT who FROM t") in ([], [["main"]])


def test_a_commit_that_no_worker_has_read_is_told_as_rolled_back(conn: Connection) -> None:
    pid = conn.stats().pid
    assert pid is not None
    block = conn.transaction(300)
    block.__enter__()
    conn.exec("INSERT INTO t VALUES ('main', 1)")
    stop(pid)
    killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
    killer.start()
    # killed sooner, before it was asked: then the next worker says it
    with pytest.raises(StatementError) as caught:
        block.__exit__(None, None, None)
    killer.join()
    assert caught.value.code == "TRANSACTION_OVER"


def test_a_rollback_that_a_stopped_worker_hears_of_too_late_is_done_all_the_same(
    conn: Connection,
) -> None:
    pid = conn.stats().pid
    assert pid is not None
    with trunkline.connect(handle(conn)) as other:
        block = conn.transaction(300)
        block.__enter__()
        conn.exec("INSERT INTO t VALUES ('main', 1)")
        stop(pid)
        try:
            block.__exit__(ValueError, ValueError(), None)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert rows(other, "SELECT who FROM t") == []
        _block(conn)


def test_short_waits_for_a_turn_lock_nobody_out(conn: Connection) -> None:
    """Each block begins, or says that its turn did not come; and what it began ends."""
    with trunkline.connect(handle(conn)) as other:
        for _ in range(300):
            with contextlib.suppress(OperationTimeout, ZeroDivisionError), conn.transaction(0.5):
                conn.exec("INSERT INTO t VALUES ('main', 1)")
                raise ZeroDivisionError
            other.exec("SELECT 1", timeout=10_000)
        assert rows(other, "SELECT who FROM t") == []


def _block_of(conn: Connection) -> Callable[[int], None]:
    def write(n: int) -> None:
        with conn.transaction():
            conn.exec("INSERT INTO t VALUES ('main', ?)", n)

    return write


def _commit_of(conn: Connection) -> Callable[[int], None]:
    """As the code of who uses trunkline.dbapi carefully."""
    link = dbapi.connect(conn)

    def write(n: int) -> None:
        try:
            link.cursor().execute("INSERT INTO t VALUES ('main', ?)", (n,))
            link.commit()
        except BaseException:
            link.rollback()
            raise

    return write


# a socket that was in the hands of what was interrupted ends with it, and Python warns of that
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("way", [_block_of, _commit_of])
def test_ctrl_c_at_any_moment_locks_nobody_out(
    conn: Connection, way: Callable[[Connection], Callable[[int], None]]
) -> None:
    chance = random.Random(7)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    interrupted = 0
    write = way(conn)
    try:
        with trunkline.connect(handle(conn)) as other:
            for n in range(600):
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 2e-3))
                    write(n)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupted += 1
                other.exec("SELECT 1", timeout=10_000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted
    stored = [n for [n] in rows(conn, "SELECT n FROM t")]
    assert stored == sorted(set(stored))


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), "x", None, True])
def test_how_long_to_wait_is_a_number_above_zero(conn: Connection, wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout_ms"):
        conn.transaction(wrong)
    assert rows(conn, "SELECT 1") == [[1]]

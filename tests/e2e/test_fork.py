"""`os.fork` around open connections: a child that uses them, one that does not, parents full of threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import trunkline
from tests.support.programs import Program, until
from tests.support.servers import WsServer, echo_messages
from tests.support.sockets import SocketServer, echo
from trunkline import Connection, Dial, connect

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def in_child(work: Callable[[], object]) -> int:
    """Fork, run `work` in the child, end there with 0 when it returned something true."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        status = 0 if work() else 2
    finally:
        os._exit(status)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_parent_and_child_go_on_with_the_same_object() -> None:
    with WsServer(echo_messages) as server, connect(server.url) as conn:
        assert conn.write("before") == 6
        assert conn.read(5000) == "before"

        def child() -> bool:
            return conn.write("child") == 5 and conn.read(10_000) == "child"

        assert exit_code(in_child(child)) == 0
        assert conn.write("parent") == 6
        assert conn.read(5000) == "parent"
        until(lambda: conn.stats().holders == 1, "the child has gone")


def test_a_child_that_does_not_use_it_changes_nothing() -> None:
    with WsServer(echo_messages) as server, connect(server.url) as conn:
        assert exit_code(in_child(lambda: True)) == 0
        assert exit_code(in_child(lambda: conn.close() is None)) == 0
        for number in range(20):
            conn.write(str(number))
            assert conn.read(5000) == str(number)


def test_parent_and_child_share_the_messages() -> None:
    go = threading.Event()

    def behave(ws: Any) -> None:
        go.wait(30)
        for number in range(300):
            ws.send(str(number))
            threading.Event().wait(0.001)
        for _ in ws:
            pass

    with WsServer(behave) as server, connect(server.url) as conn:
        read_end, write_end = os.pipe()

        def child() -> bool:
            os.write(write_end, b" ".join(read_all(conn)))
            return True

        pid = in_child(child)
        os.close(write_end)
        until(lambda: conn.stats().holders == 2, "the child as a holder")
        go.set()
        mine = read_all(conn)
        with os.fdopen(read_end, "rb") as pipe:
            theirs = pipe.read().split()
        assert exit_code(pid) == 0
        assert sorted(map(int, mine + theirs)) == list(range(300))
        assert theirs


def read_all(conn: Connection) -> list[bytes]:
    got = []
    while (message := conn.read(2000)) is not None:
        got.append(str(message).encode())
    return got


def test_a_child_of_a_parent_full_of_threads_dials() -> None:
    with SocketServer(echo) as server:
        conns = [connect(server.url) for _ in range(6)]
        done = threading.Event()

        def busy(conn: Connection) -> None:
            while not done.is_set():
                conn.write("x")
                conn.read(1000)

        threads = [threading.Thread(target=busy, args=(conn,)) for conn in conns for _ in range(2)]
        for thread in threads:
            thread.start()

        def child() -> bool:
            with connect(server.url) as own:
                own.write("own")
                ok = own.read(10_000) == "own"
            return ok and all(conn.write("mine", 5000) == 4 for conn in conns)

        try:
            assert [exit_code(pid) for pid in [in_child(child) for _ in range(4)]] == [0] * 4
        finally:
            done.set()
            for thread in threads:
                thread.join(20)


def test_a_database_is_used_by_parent_and_child() -> None:
    with connect("sqlite3://:memory:") as conn:
        conn.exec("CREATE TABLE t (n)")

        def child() -> bool:
            with conn.transaction():
                conn.exec("INSERT INTO t VALUES (?)", os.getpid())
            return True

        pids = [in_child(child) for _ in range(4)]
        assert [exit_code(pid) for pid in pids] == [0] * 4
        found = conn.exec("SELECT n FROM t ORDER BY n")
        assert found is not None
        assert found["values"] == [[pid] for pid in sorted(pids)]


def test_a_forked_child_leaves_through_the_interpreter_without_a_word() -> None:
    code = """
c = Dial(args[0]); c.write('a'); c.read(5000)
pid = os.fork()
if not pid: c.write('b'); sys.exit(0)
say('child', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])); say('rest', c.read(5000))
"""
    # From 3.12 on Python itself warns of a fork in a process with threads, of which ours is one.
    warn = "import warnings; warnings.simplefilter('always'); "
    warn += "warnings.filterwarnings('ignore', '.*multi-threaded', DeprecationWarning)\n"
    with (
        SocketServer(echo) as server,
        Program(warn + code, server.url) as it,
    ):
        assert it.end() == 0
        assert it.lines == ["child 0", "rest b"]


def test_children_of_multiprocessing_may_outlast_the_main_program() -> None:
    code = """
import multiprocessing
def child(conn, said):
    said.set(); sys.stdin = open(0); conn.write('late'); say('got', conn.read(10000))
if __name__ == '__main__':
    context = multiprocessing.get_context('fork')
    c = Dial(args[0]); said = context.Event()
    context.Process(target=child, args=(c, said)).start()
    said.wait()
"""
    with SocketServer(echo) as server, Program(code, server.url) as program:
        assert program.wait_line("got ") == "late"
        assert program.end() == 0


def test_the_strategys_own_signals_and_children_are_not_disturbed() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: heard.append(number))
    default = (
        signal.getsignal(signal.SIGCHLD),
        signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGINT),
    )
    try:
        with SocketServer(echo) as server, connect(server.url) as conn:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert heard == [signal.SIGUSR2]
            own = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
            pid, status = os.wait()
            own.returncode = os.waitstatus_to_exitcode(status)
            assert (pid, own.returncode) == (own.pid, 7)
            assert subprocess.run([sys.executable, "-c", ""], check=False).returncode == 0
            assert conn.write("x") == 1
            now = (
                signal.getsignal(signal.SIGCHLD),
                signal.getsignal(signal.SIGTERM),
                signal.getsignal(signal.SIGINT),
            )
            assert now == default
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize(
    "call", ["c.read()", "c.read(60000)", "next(iter(c))", "s.exec(SQL)", "d.read()"]
)
def test_ctrl_c_ends_a_call_that_waits_and_spoils_nothing(call: str) -> None:
    code = f"""
SQL = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT max(n) FROM c"
signal.signal(signal.SIGINT, signal.default_int_handler)
c = Dial(args[0]); s = Dial('sqlite3://:memory:'); d = Dial(c.fd())
say('waiting')
try:
    {call}
except KeyboardInterrupt:
    say('interrupted')
c.write('x'); say('read', {"d" if call[0] == "d" else "c"}.read(5000))
say('rows', s.exec('SELECT 1', timeout=5000)['values'])
"""
    with SocketServer(echo) as server, Program(code, server.url) as program:
        program.wait_line("waiting")
        until(lambda: _sleeps(program.pid), "a call that waits")
        os.kill(program.pid, signal.SIGINT)
        program.wait_line("interrupted")
        assert program.wait_line("read ") == "x"
        assert program.wait_line("rows ") == "[[1]]"
        assert program.end() == 0


def _sleeps(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"S"


def test_last_error_and_handles_of_a_child_are_its_own() -> None:
    assert Dial("nosuch://x") is None
    with SocketServer(echo) as server, connect(server.url) as conn:
        handle = conn.fd()

        def child() -> bool:
            other = Dial(handle)
            assert other is not None
            return other.write("x") == 1 and other.read(5000) == "x" and conn.fd() == handle

        assert exit_code(in_child(child)) == 0
        assert "nosuch" in (trunkline.last_error() or "")

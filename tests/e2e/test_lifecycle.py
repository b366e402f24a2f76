"""Nothing is left behind within 5 s, however a strategy ends; workers that die are answered for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.programs import Program, Remains, until
from tests.support.servers import Behaviour, WsServer, echo_messages, feed, hold
from tests.support.sockets import SocketServer, deaf, echo, say
from tests.support.stopping import stop
from trunkline import Connection, Dial

pytestmark = pytest.mark.own_broker

DIALLED = """
conns = [Dial(args[0]), Dial(args[1] + '|reconnect=true'), Dial('sqlite3://:memory:')]
assert all(conns)
handle = conns[0].fd()
say('ready')
"""

ENDINGS = {
    "returns": "",
    "raises": "raise RuntimeError('on purpose')",
    "exits from a thread that reads": (
        "threading.Thread(target=conns[0].read, daemon=True).start()\nconns[1].read(50)\nsys.exit(3)"
    ),
    "os._exit": "os._exit(0)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM); signal.pause()",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGKILL in a transaction": (
        "conns[2].transaction().__enter__()\nconns[2].exec('CREATE TABLE t (n)')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    ),
    "SIGKILL with forked children": (
        "for _ in range(2):\n"
        "    if not os.fork():\n"
        "        conns[0].write('from a child'); say('child'); conns[0].read(); os._exit(0)\n"
        "sys.stdin.readline(); os.killpg(0, signal.SIGKILL)"
    ),
}


@pytest.fixture
def remains(_no_leaks: None) -> Remains:
    return Remains()


@pytest.fixture
def servers() -> Iterator[tuple[str, str]]:
    with SocketServer(deaf) as tcp, WsServer(feed(100)) as ws:
        yield tcp.url, ws.url


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_left_when_a_strategy_ends(
    ending: str, servers: tuple[str, str], remains: Remains
) -> None:
    with Program(DIALLED + ENDINGS[ending], *servers) as program:
        program.wait_line("ready")
        if "children" in ending:
            program.wait_line("child")
            program.tell()
        program.end()
    remains.assert_none()


@pytest.mark.parametrize(
    "when", ["at once", "when the broker is there", "when the worker is there"]
)
def test_nothing_is_left_when_a_strategy_is_killed_while_dialling(
    when: str, remains: Remains
) -> None:
    with (
        SocketServer(deaf) as server,
        Program("say('on'); Dial(args[0])", f"ws{server.url[3:]}") as program,
    ):
        program.wait_line("on")
        if when == "when the broker is there":
            until(lambda: remains.processes("trunkline.broker"), "a broker")
        elif when == "when the worker is there":
            server.wait_peers(1)
        program.kill()
    remains.assert_none()


def test_nothing_is_left_when_broker_and_strategy_are_killed(
    servers: tuple[str, str], remains: Remains
) -> None:
    with Program(DIALLED + "signal.pause()", *servers) as program:
        program.wait_line("ready")
        stop(program.pid)  # or it would start another broker
        remains.broker().kill()
        program.kill()
    remains.assert_none()


def test_nothing_is_left_when_broker_and_strategy_without_a_connection_are_killed(
    remains: Remains,
) -> None:
    with Program("Dial('sqlite3://:memory:').close(); say('ready'); signal.pause()") as program:
        program.wait_line("ready")
        until(lambda: not remains.processes("trunk-sqlite3"), "the end of the worker")
        stop(program.pid)
        remains.broker().kill()
        program.kill()
    remains.assert_none()


def test_nothing_is_left_when_only_the_workers_are_killed(
    servers: tuple[str, str], remains: Remains
) -> None:
    with Program(DIALLED + "sys.stdin.readline()", *servers) as program:
        program.wait_line("ready")
        workers = remains.processes("trunk-")
        for worker in workers:
            worker.kill()
        psutil.wait_procs(workers, 5)
        runtime = Path(os.environ["TRUNKLINE_RUNTIME"])
        # Only the one that is to reconnect has a worker, and so a door, again.
        until(lambda: len(list(runtime.glob("b-*/w-*"))) <= 2, "the doors of the dead")
        program.tell()
        program.end()
    remains.assert_none()


def worker_of(conn: Connection) -> psutil.Process:
    return psutil.Process(conn.stats().pid)


def test_a_killed_worker_without_reconnect_is_read_to_its_end() -> None:
    with WsServer(feed(50)) as server:
        conn = Dial(server.url)
        assert conn is not None
        assert conn.read(5000) == "0"
        until(
            lambda: (conn.stats().messages_in, conn.stats().queued) == (50, 0),
            "everything sent ahead",
        )
        worker_of(conn).kill()
        assert [conn.read(5000) for _ in range(49)] == [str(n) for n in range(1, 50)]
        assert [conn.read(5000), conn.read(), conn.read(-1), conn.read(-2)] == [""] * 4
        assert conn.write("x") == 0
        assert conn.fd() is None
        assert conn.stats().state == "failed"
        assert "SIGKILL" in (conn.stats().last_error or "")


def test_a_killed_tcp_worker_reads_as_none() -> None:
    with SocketServer(say(b"abc")) as server:
        conn = Dial(server.url)
        assert conn is not None
        until(
            lambda: conn.stats().buffered == 1 and conn.stats().queued == 0, "a message sent ahead"
        )
        worker_of(conn).kill()
        assert conn.read(5000) == "abc"  # it was sent ahead
        assert conn.read() is None


def test_a_request_that_waits_is_answered_when_its_worker_is_killed() -> None:
    conn = Dial("sqlite3://:memory:")
    assert conn is not None
    pid = conn.stats().pid
    endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT max(n) FROM c"
    answers: list[object] = []
    waiting = threading.Thread(target=lambda: answers.append(conn.exec(endless)))
    waiting.start()
    until(lambda: psutil.Process(pid).cpu_times().user > 0.3, "a statement that runs")
    os.kill(pid, signal.SIGKILL)
    waiting.join(5)
    assert answers == [None]
    assert "may or may not" in (__import__("trunkline").last_error() or "")


def test_a_killed_worker_with_reconnect_is_replaced() -> None:
    with WsServer(say_number()) as server:
        conn = Dial(server.url + "|reconnect=true&interval=20")
        assert conn is not None
        assert conn.read(5000) == "0"
        first = conn.stats()
        os.kill(first.pid, signal.SIGKILL)
        assert conn.read(5000) == ""
        until(lambda: conn.read(200) == "1", "a message of the second link")
        second = conn.stats()
        assert (second.incarnation, second.state, second.reconnects) == (2, "open", 1)
        assert conn.write("x") == 1


def say_number() -> Behaviour:
    """Each link's first message is its number; then it takes what comes."""
    numbers = iter(range(100))

    def behave(ws: object) -> None:
        ws.send(str(next(numbers)))  # type: ignore[attr-defined]
        hold(ws)  # type: ignore[arg-type]

    return behave


def test_too_many_crashes_are_the_end_and_say_so() -> None:
    with WsServer(echo_messages) as server:
        conn = Dial(server.url + "|reconnect=true&interval=10")
        assert conn is not None
        killed: set[int] = set()

        def failed() -> bool:
            conn.read(20)
            pid = conn.stats().pid
            if pid and pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            return conn._member.gone is not None

        until(failed, "the end", 30)
        assert len(killed) == 6
        assert conn.stats().state == "failed"
        assert "5 crashes within 30 s were too many" in (conn.stats().last_error or "")
        assert conn.read() == ""


def test_a_stopped_worker_delays_nobody_and_is_replaced() -> None:
    with WsServer(echo_messages) as server, SocketServer(echo) as other:
        conn, well = Dial(server.url + "|reconnect=true&interval=10"), Dial(other.url)
        assert conn is not None
        assert well is not None
        second = Dial(conn.fd())
        assert second is not None
        stop(conn.stats().pid)
        assert conn.write("x", 100) == 0
        for _ in range(3):
            assert conn.read(1) is second.read(1) is None
        assert conn.read(-2) is None
        assert well.write("alive") == 5
        assert well.read(5000) == "alive"
        assert well.fd()
        until(lambda: conn.read(100) == "", "the end of the worker that was stopped", 20)
        until(lambda: conn.write("again", 500), "a write through the next", 20)
        assert conn.stats().incarnation == 2

"""The broker, or its zygote, is killed: connections live on, nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.servers.postgres import Postgres
from tests.support.programs import Program, Remains, until
from tests.support.servers import Behaviour, WsServer, echo_messages
from tests.support.sockets import SocketServer, echo
from tests.support.stopping import stop
from tests.support.waiting import Background
from trunkline import Connection, Dial, connect, last_error, shutdown
from trunkline.errors import OutcomeUnknown, Unconfirmed
from trunkline.proxy import process, route
from trunkline.proxy.routes.requests import RequestRoute
from trunkline.testing.faultproxy import FaultProxy
from trunkline.wire import values
from trunkline.wire.envelope import Kind

pytestmark = pytest.mark.own_broker

_PACE = threading.Event()


def numbers(pace_s: float = 0.001) -> Behaviour:
    """0, 1, 2, ... until the client leaves."""

    def behave(ws: object) -> None:
        number = 0
        while True:
            ws.send(str(number))  # type: ignore[attr-defined]
            number += 1
            _PACE.wait(pace_s)

    return behave


@pytest.fixture
def remains(_no_leaks: None, monkeypatch: pytest.MonkeyPatch) -> Remains:
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    return Remains()


def broker_pid() -> int:
    found = process.get().link.ask_broker(Kind.LIST)
    return int(values.unpack(found[0])["pid"])


def dial(address: str) -> Connection:
    conn = Dial(address)
    assert conn is not None
    return conn


@pytest.mark.parametrize("times", [1, 2])
def test_a_numbered_feed_is_read_on_without_a_gap(times: int, remains: Remains) -> None:
    with WsServer(numbers()) as server:
        conn = dial(server.url)
        feed = Numbered(conn)
        for _ in range(times):
            assert feed.read(300)
            remains.broker().kill()
            assert feed.read(300)
        assert feed.read(1000)
        assert conn.write("x") == 1
        handle = conn.fd()
        assert handle
        second = dial_handle(handle)
        both = [read_number(conn), read_number(second)]
        assert max(both) - min(both) == 1
        assert conn.stats().dropped == 0


def test_nor_where_everything_goes_through_the_router(
    remains: Remains, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_door(*_: object) -> None:
        raise OSError("as from another machine")

    monkeypatch.setattr(route, "StreamRoute", no_door)
    with WsServer(numbers()) as server:
        conn = dial(server.url)
        feed = Numbered(conn)
        for _ in range(2):
            assert feed.read(200)
            os.kill(broker_pid(), signal.SIGKILL)
        assert feed.read(400)
        assert conn.stats().dropped == 0
        # What was read may all have been sent before; and a worker whose object is closed before another
        # broker takes over stays for a while.
        assert broker_pid()


class Numbered:
    """A reader of 0, 1, 2, ... that stops at the first message that is not the one that had to come."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.next = 0

    def read(self, count: int) -> bool:
        for _ in range(count):
            if self.conn.read(10_000) != str(self.next):
                return False
            self.next += 1
        return True


def read_number(conn: Connection) -> int:
    message = conn.read(10_000)
    assert message, message
    return int(message)


def dial_handle(handle: int) -> Connection:
    conn = Dial(handle)
    assert conn is not None
    return conn


def test_a_strategy_that_sleeps_finds_everything_in_its_place(remains: Remains) -> None:
    with SocketServer(echo) as server:
        conn, idle = dial(server.url), dial(server.url)
        handle = idle.fd()
        idle.close()  # only its handle is left
        old = broker_pid()
        os.kill(old, signal.SIGKILL)
        until(lambda: broker_pid() != old, "another broker")
        assert conn.write("hello") == 5
        assert conn.read(5000) == "hello"
        again = dial_handle(handle)
        assert again.write("there") == 5
        assert again.read(5000) == "there"


def test_a_write_and_a_dial_in_the_very_moment_succeed(remains: Remains) -> None:
    with SocketServer(echo) as server:
        conn = dial(server.url)
        os.kill(broker_pid(), signal.SIGKILL)
        assert conn.write("now") == 3
        assert conn.read(5000) == "now"
        other = dial(server.url)
        assert other.write("new") == 3
        assert conn.fd()
        assert other.fd()


def test_a_broker_killed_under_a_dial_costs_only_time(remains: Remains) -> None:
    held = threading.Event()
    asked = threading.Event()

    def slow(ws: object, request: object) -> None:
        asked.set()
        held.wait(20)

    with WsServer(echo_messages, on_request=slow) as server:
        dial("sqlite3://:memory:")
        dialled: list[Connection | None] = []
        thread = threading.Thread(target=lambda: dialled.append(Dial(server.url)))
        thread.start()
        assert asked.wait(10)
        os.kill(broker_pid(), signal.SIGKILL)
        server.wait_connections(2)
        held.set()
        thread.join(20)
        assert dialled[0] is not None
        assert dialled[0].write("x") == 1
        assert dialled[0].read(5000) == "x"


def test_an_open_transaction_survives(remains: Remains) -> None:
    conn = dial("sqlite3://:memory:")
    conn.exec("CREATE TABLE t (n)")
    old = broker_pid()
    with conn.transaction():
        conn.exec("INSERT INTO t VALUES (1)")
        os.kill(old, signal.SIGKILL)
        until(lambda: broker_pid() != old, "another broker")
        until(lambda: not conn._member.is_stale(), "the object at the new broker")
        assert conn.exec("INSERT INTO t VALUES (2)")
    assert (conn.exec("SELECT count(*) FROM t") or {})["values"] == [[2]]


def test_two_programs_that_share_it_find_one_new_broker(remains: Remains) -> None:
    code = (
        "c = Dial(args[0]); say('handle', c.fd()); sys.stdin.readline()\n"
        "say('wrote', c.write('x'), c.read(10000)); other = int(sys.stdin.readline())\n"
        "say('shared', Dial(other) is not None, trunkline.last_error() or '')\n"
        "sys.stdin.readline()"
    )
    with SocketServer(echo) as server:
        shared = {"TRUNKLINE_BROKER": own_address()}
        with (
            Program(code, server.url, env=shared) as one,
            Program(code, server.url, env=shared) as two,
        ):
            handles = [program.wait_line("handle ") for program in (one, two)]
            old = remains.broker().pid
            os.kill(old, signal.SIGKILL)
            for program in (one, two):
                program.tell()
                assert program.wait_line("wrote ") == "1 x"
            one.tell(handles[1])
            two.tell(handles[0])
            assert one.wait_line("shared ") == two.wait_line("shared ") == "True"
            assert remains.broker().pid != old
            for program in (one, two):
                program.tell()
                program.end()
    remains.assert_none()


def own_address() -> str:
    from trunkline.wire import endpoint

    return endpoint.new_address()


def test_eight_programs_at_once_start_one_broker(remains: Remains) -> None:
    env = {"TRUNKLINE_BROKER": own_address()}
    code = "c = Dial('sqlite3://:memory:'); say('up', c is not None); sys.stdin.readline()"
    programs = [Program(code, env=env) for _ in range(8)]
    try:
        assert [program.wait_line("up ", 40) for program in programs] == ["True"] * 8
        assert remains.broker()
        assert len(remains.processes("trunk-sqlite3")) == 8
    finally:
        for program in programs:
            program.__exit__()
    remains.assert_none()


def test_a_killed_zygote_is_replaced_and_its_workers_are_still_watched(remains: Remains) -> None:
    with WsServer(echo_messages) as server:
        conn = dial(server.url + "|reconnect=true&interval=10")
        zygote = remains.zygote()
        zygote.kill()
        zygote.wait(5)
        other = dial(server.url)
        assert other.write("x") == 1
        first = conn.stats().pid
        os.kill(first, signal.SIGKILL)
        assert conn.read(5000) == ""
        until(lambda: conn.stats().pid not in (0, first), "another worker")
        until(lambda: conn.write("y"), "a write through it")


def test_the_end_of_a_broker_that_is_told_to_end_is_in_the_log(
    remains: Remains, caplog: pytest.LogCaptureFixture
) -> None:
    """A ws connection was over without a line but that another broker takes over."""
    with WsServer(echo_messages) as server:
        conns = [dial(server.url + "|reconnect=true") for _ in range(2)]
        remains.broker().terminate()
        words = "has ended: the broker was stopped; dial again"
        until(lambda: caplog.text.count(words) == 2, "a line for each")
        assert [conn.read(5000) for conn in conns] == ["", ""]
        until(lambda: "another broker has taken over" in caplog.text, "the next broker")
        assert [conn.write("x") for conn in conns] == [0, 0]
        assert caplog.text.count("the broker was stopped") == 2


def test_a_number_is_given_once_though_the_broker_is_killed(remains: Remains) -> None:
    """A Dial that comes before the former workers are back got the number of one of them."""
    with SocketServer(echo) as server:
        former = [dial(server.url) for _ in range(3)]
        remains.broker().kill()
        new = [dial(server.url) for _ in range(2)]
        assert len({conn.stats().id for conn in [*former, *new]}) == 5


def test_a_zygote_that_hangs_is_replaced(remains: Remains) -> None:
    """It was waited for without an end: for the word of a killed worker's end as for a new worker."""
    with WsServer(echo_messages) as server:
        conn = dial(server.url + "|reconnect=true&interval=10")
        zygote = remains.zygote()
        stop(zygote.pid)
        first = conn.stats().pid
        os.kill(first, signal.SIGKILL)
        other = dial(server.url)
        until(lambda: not zygote.is_running(), "the end of the zygote")
        assert other.write("x") == 1
        until(lambda: conn.write("y"), "a write through another worker")
        assert conn.stats().pid != first


def test_a_stopped_broker_holds_up_nothing_that_is_open(remains: Remains) -> None:
    with SocketServer(echo) as server:
        conn = dial(server.url)
        broker = remains.broker()
        stop(broker.pid)
        try:
            assert conn.write("x") == 1
            assert conn.read(5000) == "x"
            assert Dial(server.url, 0.2) is None
        finally:
            broker.resume()
        until(lambda: Dial(server.url), "a dial")


def test_a_connection_whose_link_was_down_when_all_died_is_whole_again(remains: Remains) -> None:
    """The loss of the link has been read; then broker and worker are gone, and it is dialled anew."""
    with WsServer(echo_messages) as server, FaultProxy(server.port) as proxy:
        conn = dial(f"ws://{proxy.address}|reconnect=true&interval=10&maxInterval=100")
        for _ in range(3):
            assert conn.write("before") == 6
            assert conn.read(5000) == "before"
        proxy.refuse()
        proxy.cut()
        until(lambda: conn.read(100) == "", "the loss of the link")
        for process in (remains.broker(), *remains.processes("trunk-ws")):
            process.kill()
        proxy.heal()
        until(lambda: conn.write("after") == 5, "a write", 30)
        until(lambda: conn.read(1000) == "after", "its echo")
        assert conn.read(300) is None  # no outage is told of, for there is none
        assert conn.write("again") == 5
        assert conn.read(5000) == "again"
        assert conn.read(300) is None
        assert conn.stats().state == "open"


def test_a_peer_that_takes_its_time_is_dialled_anew_all_the_same(remains: Remains) -> None:
    """The program waits 2.5 s at most for the broker; the dialling itself may take its whole timeout."""
    asked: list[float] = []

    def slow(ws: object, request: object) -> None:
        asked.append(time.monotonic())
        if len(asked) > 1:
            threading.Event().wait(4)

    with WsServer(echo_messages, on_request=slow) as server:
        conn = dial(f"{server.url}|reconnect=true&interval=10")
        for process in (remains.broker(), *remains.processes("trunk-ws")):
            process.kill()
        until(lambda: conn.write("x"), "a write", 60)
        until(lambda: conn.read(1000) == "x", "its echo")
        assert len(asked) == 2  # it was dialled once, and waited for


def test_a_database_that_takes_its_time_is_dialled_anew_all_the_same(
    remains: Remains, postgres: Postgres
) -> None:
    with FaultProxy(postgres.port) as proxy:
        conn = dial(f"postgres://u:p@{proxy.address}/postgres")
        assert conn.exec("SELECT 1") is not None
        proxy.slow("down", latency_s=1.5)  # a login has several steps
        for process in (remains.broker(), *remains.processes("trunk-postgres")):
            process.kill()
        until(lambda: conn.exec("SELECT 2", timeout=30_000), "a statement", 90)


def test_a_statement_waits_while_its_connection_is_dialled_anew(
    remains: Remains, postgres: Postgres
) -> None:
    conn = dial(f"postgres://u:p@{postgres.address}/postgres")
    assert conn.exec("SELECT 1") is not None
    for each in (remains.broker(), *remains.processes("trunk-postgres")):
        each.kill()
    found = conn.exec("SELECT 2", timeout=30_000)
    assert found is not None, last_error()
    assert found["values"] == [[2]]


def test_a_read_keeps_its_deadline_while_its_connection_is_dialled_anew(remains: Remains) -> None:
    """Broker and worker are gone, and the peer takes its time: 2.5 s for each attempt to dial anew."""
    with WsServer(echo_messages) as server, FaultProxy(server.port) as proxy:
        conn = dial(f"ws://{proxy.address}|reconnect=true&interval=10")
        proxy.deaf()
        for process in (remains.broker(), *remains.processes("trunk-ws")):
            process.kill()
        took = []
        while proxy.connections < 3:
            began = time.monotonic()
            assert conn.read(200) in ("", None)
            took.append(time.monotonic() - began)
        assert max(took) < 2
        proxy.heal()
        proxy.reset()
        until(lambda: conn.write("x"), "a write", 30)
        until(lambda: conn.read(200) == "x", "its echo")


def test_what_was_on_its_way_through_a_killed_broker_is_said_to_be_unknown(
    remains: Remains,
) -> None:
    """With no door, requests go through the router."""
    slow = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"
    with SocketServer(lambda peer: peer.stopping.wait()) as server:
        database, stream = connect("sqlite3://:memory:"), connect(server.url)
        for conn in (database, stream):
            conn._member.route._requests = RequestRoute(Path("/nowhere"))
        working = [
            Background(lambda: database.exec(slow, timeout=60_000)),
            Background(lambda: stream.write(b"x" * (64 << 20), 60_000)),
        ]
        until(lambda: psutil.Process(database_pid(remains)).cpu_times().user > 0.2, "the statement")
        remains.broker().kill()
        with pytest.raises(OutcomeUnknown):
            working[0].result(30)
        with pytest.raises(Unconfirmed):
            working[1].result(30)
        database.close()
        stream.close()


def database_pid(remains: Remains) -> int:
    return remains.processes("trunk-sqlite3")[0].pid


def test_a_query_goes_on_with_the_next_broker(remains: Remains) -> None:
    series = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 100000) SELECT n FROM c"
    with dial("sqlite3://:memory:") as connection:
        found = connection.query(series)
        assert found is not None
        assert next(found) == [1]
        old = remains.broker()
        old.kill()
        numbers = [next(found)[0] for _ in range(20_000)]
        until(lambda: broker_pid() != old.pid, "another broker")
        assert [*numbers, *(row[0] for row in found)] == list(range(2, 100_001))


@pytest.mark.parametrize("seen", [False, True])
def test_a_program_that_closes_as_the_broker_dies_leaves_no_worker(
    seen: bool, remains: Remains
) -> None:
    """The program lives on, so its worker would wait for it; it has to hear from the next broker that it
    need not."""
    with SocketServer(echo) as server:
        for _ in range(3):
            conn = dial(server.url)
            link = process.get().link
            generation = link.generation
            remains.broker().kill()
            if seen:
                until(
                    lambda link=link, before=generation: link.generation != before,
                    "the loss of the broker",
                )
            conn.close()
            shutdown()
            remains.assert_none()


@pytest.mark.parametrize("end", ["d.close()", "trunkline.shutdown()", "os._exit(0)"])
def test_a_holder_that_leaves_first_takes_nothing_from_one_that_has_yet_to_come_back(
    end: str, remains: Remains
) -> None:
    """A program that does not run while the broker is replaced finds its connection, and what is in it."""
    owner = (
        "c = Dial('sqlite3://:memory:'); c.exec('CREATE TABLE t (n)'); say('handle', c.fd())\n"
        "sys.stdin.readline(); say('found', c.exec('SELECT count(*) FROM t'), trunkline.last_error())\n"
        "sys.stdin.readline(); c.close()"
    )
    guest = (
        "d = Dial(int(args[0])); d.exec('SELECT 1'); say('there'); sys.stdin.readline()\n"
        "d = Dial(int(args[0])); say('used', d.exec('SELECT count(*) FROM t'))\n"
        f"{end}; say('left'); sys.stdin.readline()"
    )
    shared = {"TRUNKLINE_BROKER": own_address()}
    with Program(owner, env=shared) as first:
        handle = first.wait_line("handle ")
        with Program(guest, handle, env=shared) as second:
            second.wait_line("there")
            stop(first.process.pid)
            try:
                old = remains.broker()
                old.kill()
                second.tell()
                assert "[[0]]" in second.wait_line("used ")
                if "exit" not in end:
                    second.wait_line("left")
                    second.tell()
                second.end()
            finally:
                first.process.send_signal(signal.SIGCONT)
        first.tell()
        assert "[[0]]" in first.wait_line("found ")
        first.tell()
        first.end()
    remains.assert_none(12)


def test_a_program_that_took_a_frozen_broker_for_lost_still_ends_it(
    remains: Remains, caplog: pytest.LogCaptureFixture
) -> None:
    dial("sqlite3://:memory:").close()
    broker = remains.broker()
    stop(broker.pid)
    try:
        until(lambda: "the broker was lost" in caplog.text, "the loss of the broker")
    finally:
        broker.resume()
    until(lambda: Dial("sqlite3://:memory:"), "a dial")
    shutdown()
    remains.assert_none()


def test_the_first_dial_of_a_program_keeps_its_deadline_where_the_broker_is_frozen(
    remains: Remains,
) -> None:
    code = (
        "import time; began = time.monotonic(); found = Dial('sqlite3://:memory:', 1)\n"
        "say('took', found, time.monotonic() - began < 5, trunkline.last_error())"
    )
    shared = {"TRUNKLINE_BROKER": own_address()}
    holder = "c = Dial('sqlite3://:memory:'); say('there'); sys.stdin.readline(); c.close()"
    with Program(holder, env=shared) as first:
        first.wait_line("there")
        broker = remains.broker()
        stop(broker.pid)
        try:
            with Program(code, env=shared) as second:
                answer = second.wait_line("took ")
                second.end()
        finally:
            broker.resume()
        assert answer.startswith("None True the broker at")
        first.tell()
        first.end()
    remains.assert_none()


@pytest.mark.parametrize("first", ["zygote", "broker"])
def test_a_group_that_is_told_to_end_leaves_nothing(first: str, remains: Remains) -> None:
    """SIGTERM to all. The broker leaves its folder to the program, which starts no other."""
    with SocketServer(echo) as server:
        code = "c = Dial(args[0]); say('up', c is not None); sys.stdin.readline()"
        with Program(code, server.url, env={"TRUNKLINE_BROKER": own_address()}) as program:
            assert program.wait_line("up ") == "True"
            broker, zygote = remains.broker(), remains.zygote()
            stop(
                program.pid
            )  # so that the broker ends first, and believes that the program will come back
            for process in (zygote, broker) if first == "zygote" else (broker, zygote):
                process.terminate()
                if process is broker:
                    until(lambda: not broker.is_running(), "the end of the broker")
            program.kill()
    remains.assert_none(8.0)


def test_a_broker_under_nohup_outlives_its_terminal(remains: Remains) -> None:
    address = own_address()
    code = "signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.executable, [sys.executable, *args])"
    with (
        SocketServer(echo) as server,
        Program(code, "-m", "trunkline", "broker", "--address", address) as broker,
    ):
        broker.wait_line("broker ready")
        with Program(
            "c = Dial(args[0]); say('up', c is not None); sys.stdin.readline()\n"
            "d = Dial(args[0]); say('sent', c.write('x'), d.write('x'))",
            server.url,
            env={"TRUNKLINE_BROKER": address},
        ) as program:
            assert program.wait_line("up ") == "True"
            os.killpg(
                broker.pid, signal.SIGHUP
            )  # what the kernel sends when the terminal is closed
            program.tell()
            assert program.wait_line("sent ") == "1 1"
            program.end()
        broker.kill(signal.SIGTERM)
    remains.assert_none()

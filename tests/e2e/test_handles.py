"""Handles: in threads, in children of every kind, in strangers, after the first object; dead ones."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.queues import Queue
from typing import Any

import pytest

import trunkline
from tests.support.programs import Program, until
from tests.support.servers import Behaviour, WsServer
from tests.support.sockets import SocketServer, echo
from trunkline import Connection, DeadHandle, Dial, connect


@pytest.fixture
def echoing() -> Iterator[Connection]:
    with SocketServer(echo) as server, connect(server.url) as conn:
        yield conn


def handle_of(conn: Connection) -> int:
    handle = conn.fd()
    assert isinstance(handle, int)
    return handle


def dialled(address: str | int) -> Connection:
    conn = Dial(address)
    assert conn is not None, trunkline.last_error()
    return conn


def exchange(handle: int, text: str, answers: Queue[Any] | None = None) -> str | bytes | None:
    """Write and read by the handle; what a child of multiprocessing runs."""
    with connect(handle) as conn:
        conn.write(text)
        answer = conn.read(10_000)
    if answers is not None:
        answers.put(answer)
    return answer


def test_threads_share_a_connection(echoing: Connection) -> None:
    handle = handle_of(echoing)
    assert handle == echoing.fd()
    answers: list[object] = []
    for number in range(4):
        thread = threading.Thread(target=lambda n=number: answers.append(exchange(handle, str(n))))
        thread.start()
        thread.join(20)
    assert answers == ["0", "1", "2", "3"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_children_of_multiprocessing_share_a_connection(method: str, echoing: Connection) -> None:
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    child = context.Process(target=exchange, args=(handle_of(echoing), "hello", answers))
    child.start()
    assert answers.get(timeout=30) == "hello"
    child.join(20)
    assert child.exitcode == 0
    child.close()
    answers.close()
    answers.join_thread()
    if method == "forkserver":
        forkserver._forkserver._stop()  # type: ignore[attr-defined]
    assert echoing.write("mine again") == 10
    assert echoing.read(5000) == "mine again"


def test_a_program_started_separately_shares_a_connection(echoing: Connection) -> None:
    code = "c = Dial(int(args[0])); c.write('stranger'); say('got', c.read(10000))"
    with Program(code, handle_of(echoing)) as program:
        assert program.wait_line("got ") == "stranger"


def test_a_handle_outlives_the_object_it_was_taken_from(echoing: Connection) -> None:
    handle = handle_of(echoing)
    echoing.close()
    assert exchange(handle, "after") == "after"
    assert exchange(handle, "and again") == "and again"


def test_without_a_handle_the_connection_ends_with_its_object() -> None:
    with SocketServer(echo) as server:
        conn = dialled(server.url)
        peer = server.wait_peers(1)[0]
        conn.close()
        until(lambda: peer.sock.fileno() < 0, "the end of the link")


@pytest.mark.own_broker
def test_a_connection_outlives_the_process_that_dialled_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    with SocketServer(echo) as server:
        code = "c = Dial(args[0]); say('broker', os.environ['TRUNKLINE_BROKER'])\n"
        code += "say('handle', c.fd()); signal.pause()"
        with Program(code, server.url) as program:
            monkeypatch.setenv("TRUNKLINE_BROKER", program.wait_line("broker "))
            conn = dialled(int(program.wait_line("handle ")))
            program.kill(signal.SIGKILL)
            assert conn.write("still") == 5
            assert conn.read(5000) == "still"


def test_a_connection_ends_with_the_last_process_that_used_it() -> None:
    with SocketServer(echo) as server:
        code = "c = Dial(args[0]); say('handle', c.fd()); c.close(); sys.stdin.readline()"
        with Program(code, server.url) as program:
            handle = int(program.wait_line("handle "))
            program.tell()
            program.end()
            peer = server.wait_peers(1)[0]
            until(lambda: peer.sock.fileno() < 0, "the end of the link")
            assert Dial(handle) is None


def test_a_connection_without_holders_ends_after_its_linger() -> None:
    with SocketServer(echo) as server:
        conn = dialled(server.url + "|linger=1")
        handle = handle_of(conn)
        conn.close()
        peer = server.wait_peers(1)[0]
        until(lambda: peer.sock.fileno() < 0, "the end of the link")
        assert Dial(handle) is None
        assert "ended" in (trunkline.last_error() or "")


@pytest.mark.parametrize(
    "handle", [4711, -1, 0, 1 << 62, (1 << 63) - 1, 1 << 63, -(1 << 70), 1 << 200]
)
def test_a_handle_that_names_nothing_is_refused_with_a_reason(handle: int) -> None:
    assert Dial(handle) is None
    assert "no connection of this handle is known at this broker" in (trunkline.last_error() or "")
    assert "set TRUNKLINE_BROKER" in (trunkline.last_error() or "")
    with pytest.raises(DeadHandle, match="dial its address again"):
        connect(handle)


def test_handles_cannot_be_guessed() -> None:
    with SocketServer(echo) as server:
        conns = [connect(server.url) for _ in range(4)]
        handles = [handle_of(conn) for conn in conns]
        assert len({handle >> 20 for handle in handles}) == 4
        assert all(handle.bit_length() == 63 for handle in handles)


def test_the_handle_of_an_ended_connection_is_dead(echoing: Connection) -> None:
    handle = handle_of(echoing)
    pid = echoing.stats().pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: Dial(handle) is None, "a dead handle")
    assert "SIGKILL" in (trunkline.last_error() or "")


def test_a_pickled_connection_is_its_handle(echoing: Connection) -> None:
    copy = pickle.loads(pickle.dumps(echoing))
    assert isinstance(copy, Connection)
    copy.write("x")
    assert copy.read(5000) == "x"
    copy.close()
    with pytest.raises(trunkline.ClosedError):
        copy.write("closed")  # as the original, it raises


def test_what_was_read_before_close_is_not_read_again_by_the_next() -> None:
    with WsServer(count_to(100)) as server:
        first = dialled(server.url)
        handle = handle_of(first)
        assert [first.read(5000) for _ in range(10)] == [str(n) for n in range(10)]
        first.close()
        second = dialled(handle)
        assert [second.read(5000) for _ in range(10)] == [str(n) for n in range(10, 20)]
        del second  # dropped, not closed
        third = dialled(handle)
        assert third.read(5000) == "20"


def count_to(count: int, pace: Callable[[], object] = lambda: None) -> Behaviour:
    def behave(ws: Any) -> None:
        for number in range(count):
            ws.send(str(number))
            pace()
        for _ in ws:
            pass

    return behave


READER = """
c = Dial(int(args[0]))
say('up')
sys.stdin.readline()
while True:
    m = c.read(3000)
    if m is None: break
    say('m', m)
say('end')
sys.stdin.readline()
"""


def test_each_message_goes_to_exactly_one_of_four_readers() -> None:
    go = threading.Event()
    pause = threading.Event()

    def behave(ws: Any) -> None:
        go.wait(30)
        for number in range(400):
            ws.send(str(number))
            pause.wait(0.001)
        for _ in ws:
            pass

    with WsServer(behave) as server:
        conn = dialled(server.url)  # holds and never reads: it must keep nothing from the others
        readers = [Program(READER, handle_of(conn)) for _ in range(4)]
        try:
            for reader in readers:
                reader.wait_line("up")
                reader.tell()
            go.set()
            for reader in readers:
                reader.wait_line("end", 30)
            got = [
                int(line[2:])
                for reader in readers
                for line in reader.lines
                if line.startswith("m ")
            ]
            assert sorted(got) == list(range(400))
            assert conn.stats().buffered == 0
        finally:
            for reader in readers:
                reader.__exit__()


def test_what_a_killed_reader_had_not_read_goes_to_the_next() -> None:
    with WsServer(count_to(200)) as server:
        conn = dialled(server.url)
        handle = handle_of(conn)
        code = "c = Dial(int(args[0])); say('got', *[c.read(5000) for _ in range(20)]); sys.stdin.readline()"
        conn.close()
        with Program(code, handle) as reader:
            until(lambda: "got" in " ".join(reader.lines), "twenty messages", 20)
            got = [int(word) for word in reader.wait_line("got ").split()]
            other = dialled(
                handle
            )  # from now on each has to ask, so what was sent ahead is given back
            more = [int(other.read(5000) or -1) for _ in range(100)]
            reader.kill()
            rest = [int(other.read(5000) or -1) for _ in range(80)]
        assert got + more + rest == list(range(200))

"""Threads, forks, collection and asyncio on the same connections; every way a program ends beside them."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections import Counter

import pytest

from tests.support.interrupts import HARNESS
from tests.support.programs import Program, Remains
from tests.support.servers import WsServer, feed
from tests.support.sockets import SocketServer, echo
from tests.support.stopping import stop
from tests.support.waiting import Background, until
from trunkline import Connection, Dial
from trunkline.proxy import process

COUNT = 3000


def dial(address: str, **options: object) -> Connection:
    conn = Dial(address, options)
    assert conn is not None
    return conn


def test_twenty_threads_on_one_object_read_each_message_once() -> None:
    with WsServer(feed(COUNT)) as server, dial(server.url, buffer=10_000) as conn:
        seen: list[str] = []

        def read() -> None:
            while len(seen) < COUNT:
                message = conn.read(50)
                if isinstance(message, str) and message:
                    seen.append(message)

        threads = [Background(read) for _ in range(20)]
        for thread in threads:
            thread.result(60)
        assert Counter(seen) == Counter(str(number) for number in range(COUNT))


def test_twenty_threads_dial_use_and_drop_objects_while_others_are_looked_through() -> None:
    with SocketServer(echo) as server, dial(server.url) as conn:
        handle = conn.fd()
        assert handle is not None

        def use(own: int) -> int:
            for number in range(10):
                other = Dial(handle)
                assert other is not None
                assert other.stats().state == "open"
                if number % 2:
                    other.close()
                if own == 0:
                    gc.collect()
            return own

        threads = [Background(lambda own=own: use(own)) for own in range(20)]  # type: ignore[misc]
        assert [thread.result(90) for thread in threads] == list(range(20))
        until(lambda: conn.stats().holders == 1, "the others to be gone")
        assert len(process.get().connections) == 1


def test_an_object_in_a_cycle_is_collected_in_any_thread() -> None:
    class Node:
        pass

    with SocketServer(echo) as server, dial(server.url) as conn:
        handle = conn.fd()
        assert handle is not None

        def drop(_: int) -> None:
            for _ in range(3):
                node = Node()
                node.me, node.conn = node, Dial(handle)  # type: ignore[attr-defined]
                assert node.conn is not None  # type: ignore[attr-defined]

        def read() -> None:
            for _ in range(10):
                conn.read(1)
                gc.collect()

        reader = Background(read)
        threads = [Background(lambda own=own: drop(own)) for own in range(4)]  # type: ignore[misc]
        for thread in [*threads, reader]:
            thread.result(60)
        gc.collect()
        until(lambda: conn.stats().holders == 1, "the others to be gone")


def test_forks_while_other_threads_read_and_write() -> None:
    code = """
conn = Dial(args[0]); echoes = Dial(args[1])
over = threading.Event()
def read():
    while not over.is_set(): conn.read(5)
def write():
    while not over.is_set(): conn.write("x"); conn.stats()
threads = [threading.Thread(target=each) for each in (read, write, read, write)]
for thread in threads: thread.start()
bad = 0
for number in range(20):
    pid = os.fork()
    if not pid:
        good = echoes.write("x", 20_000) == 1 and conn.write("y", 20_000) == 1
        os._exit(0 if good else 1)
    bad += os.waitpid(pid, 0)[1] != 0
over.set()
for thread in threads: thread.join()
say("bad", bad)
"""
    with (
        WsServer(feed(COUNT)) as server,
        SocketServer(echo) as echoes,
        Program(code, server.url, echoes.url) as program,
    ):
        assert program.wait_line("bad", 100) == "0"
        assert program.end() == 0, program.lines


def test_asyncio_beside_threads_and_a_cancelled_task_loses_nothing() -> None:
    with WsServer(feed(COUNT)) as server, dial(server.url, buffer=10_000) as conn:
        seen: list[str] = []

        def read() -> None:
            message = conn.read(20)
            if isinstance(message, str) and message:
                seen.append(message)

        async def main() -> None:
            while len(seen) < COUNT:
                tasks = [asyncio.create_task(asyncio.to_thread(read)) for _ in range(8)]
                tasks[0].cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run(main())
        assert Counter(seen) == Counter(str(number) for number in range(COUNT))


HANDLERS = {
    "reads and writes": "conn.read(1); conn.write('h'); conn.stats()",
    "raises": "armed.clear(); raise TooLong",
    "closes another and raises": "armed.clear(); other.close(); raise TooLong",
    "dials": "Dial(args[0], 5).close()",
    "closes and dials again": "globals()['conn'].close(); globals()['conn'] = Dial(args[0], 5)",
}


@pytest.mark.parametrize("what", HANDLERS)
def test_a_signal_handler_that_uses_connections_deadlocks_nothing(what: str) -> None:
    code = f"""
import time
conn, other = Dial(args[0]), Dial(args[0])
class TooLong(Exception): pass
inside, over, armed = [], [], []
def handle(*_):
    if inside or over or not armed: return
    inside.append(1)
    try:
        {HANDLERS[what]}
    finally:
        inside.pop()
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
until = time.monotonic() + 3
while not over:
    try:
        while time.monotonic() < until:
            armed[:] = [1]  # not between the blocks, where nothing catches what it raises
            conn.write("x"); conn.read(3); conn.read(-1); conn.receive(1)
        over.append(1)
    except TooLong:
        pass
signal.setitimer(signal.ITIMER_REAL, 0)
while conn.read(200): pass
say("works", conn.write("end"), conn.read(10_000))
"""
    with SocketServer(echo) as server, Program(code, server.url) as program:
        assert program.wait_line("works", 60) == "3 end", program.lines
        assert program.end(60) == 0, program.lines


ENDS = {
    "sys.exit in main": ("sys.exit(3)", 3),
    "os._exit": ("os._exit(4)", 4),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(20)", -signal.SIGTERM),
    "an unhandled error beside a thread that reads": ("1 / 0", 1),
    "an error in a thread": ("t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()", 0),
    "Ctrl-C at the end": ("signal.setitimer(signal.ITIMER_REAL, 0.001)", None),
    "open objects in a cycle at exit": ("import gc; x = [conn]; x.append(x); del conn", 0),
    "a daemon thread in read": ("pass", 0),
}


@pytest.mark.own_broker
@pytest.mark.parametrize("how", ENDS)
def test_a_program_ends_whatever_its_threads_do(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    remains = Remains()
    what, expected = ENDS[how]
    code = f"""
import time
conn, other = Dial(args[0]), Dial(args[0])
assert conn.write("x") == 1 and conn.read(10_000) == "x"
signal.signal(signal.SIGALRM, signal.default_int_handler)
threading.Thread(target=other.read, daemon=True).start()
{what}
"""
    with SocketServer(echo) as server, Program(code, server.url) as program:
        code_of_it = program.end(30)
        assert expected is None or code_of_it == expected, program.lines
        remains.assert_none(15)


@pytest.mark.own_broker
@pytest.mark.parametrize("longest_s", [0.01, 0.5])
def test_an_end_that_is_interrupted_ends(longest_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    remains = Remains()
    code = """
interrupts = Interrupts(args[1])
for number in range(6):
    conn = Dial(args[0])
    assert conn.write("x") == 1 and conn.read(10_000) == "x"
    for _ in range(3):
        interrupts.call(trunkline.shutdown, float(args[2]))
    trunkline.shutdown()
say("done")
"""
    with SocketServer(echo) as server, Program(HARNESS + code, server.url, 7, longest_s) as program:
        program.wait_line("done", 60)
        assert program.end(30) == 0, program.lines
        remains.assert_none(15)


@pytest.mark.own_broker
def test_the_first_read_of_a_forked_child_keeps_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the broker that it has to join does not answer."""
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    remains = Remains()
    code = """
import time
conn = Dial(args[0])
say("open")
sys.stdin.readline()
pid = os.fork()
if not pid:
    began = time.monotonic()
    found = conn.read(300), conn.write("x", 300)
    say("child", found, time.monotonic() - began < 6)
    os._exit(0)
os.waitpid(pid, 0)
say("waited")
sys.stdin.readline()
"""
    with SocketServer(echo) as server, Program(code, server.url) as program:
        program.wait_line("open")
        broker = remains.broker()
        stop(broker.pid)
        try:
            program.tell()
            assert program.wait_line("child", 30) == "(None, 0) True"
            program.wait_line("waited")
        finally:
            broker.resume()
        program.tell()
        assert program.end() == 0, program.lines

"""Exceptions of signal handlers (Ctrl-C above all) at random moments of every call: nothing is lost, nothing
comes twice, nothing is stuck, and what is called next works."""

from __future__ import annotations

import itertools
import os
import random
import re
import threading

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from tests.support.interrupts import HARNESS
from tests.support.programs import Program
from tests.support.servers import WsServer, feed
from tests.support.sockets import SocketServer, deaf, echo
from tests.support.waiting import until
from trunkline.proxy import dial, process
from trunkline.wire import values
from trunkline.wire.envelope import Kind

COUNT = int(os.environ.get("TRUNKLINE_INTERRUPTED", "2000"))

READS = """
conn = Dial(args[0], buffer=1_000_000)
interrupts = Interrupts(args[1])
count, choose = int(args[2]), random.Random(args[1])
forms = {
    "read": lambda: conn.read(20_000),
    "short": lambda: conn.read(1),
    "none": lambda: conn.read(-1),
    "receive": lambda: conn.receive(20_000),
    "next": lambda: next(iter(conn)),
    "all": None,
}
form = args[3]
calls = [each for each in forms.values() if each] if form == "all" else [forms[form]]
seen, until = [], time.monotonic() + 100
# On a busy machine much is here before it is read, and few calls last long enough to be interrupted.
while (len(seen) < count or (interrupts.raised < 20 and len(seen) < 10 * count)) and time.monotonic() < until:
    for message in interrupts.call(choose.choice(calls), float(args[4])):
        if message is not None:
            seen.append(message if isinstance(message, str) else message.data)
# What an interrupted call has taken and not returned counts as read, and comes now.
seen.append(conn.read(20_000))
wrong = [(place, each) for place, each in enumerate(seen) if each != str(place)]
stats = conn.stats()
say("raised", interrupts.raised)
say("seen", len(seen) >= count, wrong[:5], stats.read - len(seen), stats.dropped)
"""


@pytest.mark.parametrize("form", ["read", "short", "none", "receive", "next", "all"])
@pytest.mark.parametrize("longest_s", [0.0005, 0.02])
def test_reading_loses_and_doubles_nothing(form: str, longest_s: float, rng: random.Random) -> None:
    with (
        WsServer(feed(10 * COUNT)) as server,
        Program(HARNESS + READS, server.url, rng.random(), COUNT, form, longest_s) as program,
    ):
        assert program.wait_line("seen", 110) == "True [] 0 0", program.lines
        assert int(program.wait_line("raised")) >= 20
        assert program.end() == 0, program.lines


DIALS = """
interrupts, open_now, dialled = Interrupts(args[1]), [], 0
for trial in range(int(args[2])):
    address = args[0] if trial % 4 else args[4]
    for conn in interrupts.call(Dial, float(args[3]), address, 2):
        dialled += 1
        if conn is not None:
            assert conn.write("x", 5000) == 1 and conn.read(5000) == "x", conn.stats()
            interrupts.call(conn.close, 0.001)
            conn.close()
say("dialled", dialled, interrupts.raised)
kept = Dial(args[0])
say("works", kept.write("x"), kept.read(5000))
sys.stdin.readline()
"""


def opened_here() -> list[object]:
    """The connections of the shared broker."""
    found = values.unpack(process.get().link.ask_broker(Kind.LIST)[0])["connections"]
    assert isinstance(found, list)
    dial.shutdown()  # not left to the end of a test that dials nothing itself
    return found


@pytest.mark.parametrize("longest_s", [0.002, 0.05])
def test_a_dial_that_is_interrupted_leaves_no_connection(
    longest_s: float, rng: random.Random
) -> None:
    with (
        SocketServer(echo) as server,
        SocketServer(deaf) as silent,
        Program(
            HARNESS + DIALS,
            server.url,
            rng.random(),
            80,
            longest_s,
            silent.url.replace("tcp", "ws"),
        ) as program,
    ):
        assert program.wait_line("works", 100) == "1 x"
        assert int(program.wait_line("dialled").split()[1]) > 10
        until(lambda: len(opened_here()) == 1, "no connection but that of the last dial", 20)
        program.tell("end")
        assert program.end() == 0, program.lines


WRITES = """
conn = Dial(args[0])
interrupts = Interrupts(args[1])
taken, asked = [], 0
for number in range(int(args[2])):
    asked += 1
    for count in interrupts.call(conn.write, float(args[3]), f"<{number}>"):
        assert count == len(f"<{number}>"), count
        taken.append(number)
say("raised", interrupts.raised)
say("taken", *taken)
say("works", conn.write("end"))
sys.stdin.readline()
"""


def test_a_write_that_is_interrupted_is_sent_once_at_most(rng: random.Random) -> None:
    with (
        SocketServer(deaf) as server,
        Program(HARNESS + WRITES, server.url, rng.random(), 1500, 0.001) as program,
    ):
        assert program.wait_line("works", 100) == "3"
        peer = server.peers[0]
        text = peer.read_until(b"end").decode()
        arrived = [int(each) for each in re.findall(r"<(\d+)>", text)]
        assert "".join(f"<{number}>" for number in arrived) + "end" == text
        assert sorted(set(arrived)) == arrived
        assert {int(each) for each in program.wait_line("taken").split()} <= set(arrived)
        assert int(program.wait_line("raised")) > 100
        program.tell("end")
        assert program.end() == 0, program.lines


STATEMENTS = """
conn = connect(args[0])
conn.exec("CREATE TABLE t (n INTEGER PRIMARY KEY, half INTEGER)")
interrupts, choose = Interrupts(args[1]), random.Random(args[1])
done, spoilt = [], 0

def block(number):
    with conn.transaction():
        conn.exec("INSERT INTO t VALUES (?, 1)", 2 * number)
        conn.exec("INSERT INTO t VALUES (?, 2)", 2 * number + 1)

def rows():
    return list(conn.query("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 3000) "
                           "SELECT x FROM c"))

for number in range(int(args[2])):
    if choose.random() < 0.6:
        done += [number for _ in interrupts.call(block, float(args[3]), number)]
    elif choose.random() < 0.5:
        for found in interrupts.call(rows, float(args[3])):
            spoilt += found != [[n] for n in range(1, 3001)]
    else:
        for found in interrupts.call(conn.exec, float(args[3]), "SELECT ?", number):
            spoilt += found["values"] != [[number]]
found = [n for (n,) in conn.exec("SELECT n FROM t ORDER BY n", timeout=20_000)["values"]]
pairs = {n // 2 for n in found}
halves = [n for n in pairs if 2 * n not in found or 2 * n + 1 not in found]
missing = sorted(set(done) - pairs)
until = time.monotonic() + 20
while conn.stats().queries and time.monotonic() < until:  # the word of their end comes another way
    time.sleep(0.01)
say("raised", interrupts.raised)
say("whole", spoilt, halves, missing, len(pairs) >= len(done) > 0, conn.stats().queries)
"""


@pytest.mark.parametrize("longest_s", [0.001, 0.02])
def test_statements_that_are_interrupted_spoil_no_other(
    longest_s: float, rng: random.Random
) -> None:
    with Program(
        HARNESS + STATEMENTS, "sqlite3://:memory:", rng.random(), 300, longest_s
    ) as program:
        assert program.wait_line("whole", 100) == "0 [] [] True 0"
        assert int(program.wait_line("raised")) > 50
        assert program.end() == 0, program.lines


KILLED = """
conn = Dial(args[0], reconnect=True, interval=10, buffer=100_000)
interrupts, seen, count, kills = Interrupts(args[1]), {}, 0, 0

def kill():
    global kills
    while kills < 2:
        time.sleep(0.7)
        pid = conn.stats().pid
        if pid:
            os.kill(pid, signal.SIGKILL)
            kills += 1

def note(message):
    global count
    if message:
        link, number = message.split()
        seen.setdefault(int(link), []).append(int(number))
        count += 1

thread = threading.Thread(target=kill)
thread.start()
def last_is_open():  # a worker may be killed with all that its link has brought, or before it had one
    now = conn.stats()
    return now.incarnation >= 3 and now.state == "open"

while thread.is_alive() or not last_is_open():
    for message in interrupts.call(conn.read, 0.02, 100):
        note(message)
while (message := conn.read(2000)) is not None:
    note(message)
stats = conn.stats()
say("twice", [link for link, numbers in seen.items() if numbers != sorted(set(numbers))])
say("figures", stats.read - count, stats.messages_in - stats.read - stats.dropped - stats.buffered)
"""


def test_workers_that_are_killed_meanwhile_leave_the_figures_right(rng: random.Random) -> None:
    links = itertools.count()
    pace = threading.Event()

    def behave(ws: ServerConnection) -> None:
        link = next(links)
        try:
            for number in range(1500):
                ws.send(f"{link} {number}")
                if number % 20 == 0:
                    pace.wait(0.005)
            for _ in ws:
                pass
        except ConnectionClosed:
            pass

    with WsServer(behave) as server, Program(HARNESS + KILLED, server.url, rng.random()) as program:
        assert program.wait_line("figures", 100) == "0 0"
        assert program.wait_line("twice") == "[]"
        assert program.end() == 0, program.lines

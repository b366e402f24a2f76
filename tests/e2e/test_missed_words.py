"""What the broker says of holders and workers reaches those who could not hear it then.

A worker that is being started hears nothing yet, and an object that joins anew has given up the socket on
which its last words came.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection

from tests.support.programs import Program
from tests.support.servers import WsServer

PRELUDE = """
import time
from trunkline.proxy import process
from trunkline.wire import values
from trunkline.wire.envelope import Kind

def broker():
    return values.unpack(process.get().link.ask_broker(Kind.LIST)[0])

def wait_for(happened):
    until = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)

def connection():
    return broker()["connections"][0]

def kill_worker(number):
    wait_for(lambda: connection()["incarnation"] == number and connection()["state"] == "open")
    os.kill(connection()["pid"], signal.SIGKILL)
    wait_for(lambda: connection()["crashes"] == number)

def join_anew(conn):
    name = conn._member.holder_id
    conn._member.route.mark_stale()  # as when something was lost on the way to it
    process.get().rejoin_soon()
    wait_for(lambda: conn._member.holder_id != name)

def messages(conn, is_last):
    found = []
    until = time.monotonic() + 20
    while time.monotonic() < until and not (found and is_last(found[-1])):
        found += [message for message in [conn.read(1000)] if message]
    return found

conn = Dial(args[0], reconnect=True, interval=10)
assert conn.read(5000) == "1:0"
"""


def behave_numbered() -> object:
    links = iter(range(1, 1000))

    def behave(ws: ServerConnection) -> None:
        link = next(links)
        for number in range(30):
            ws.send(f"{link}:{number}")
        for _ in ws:
            pass

    return behave


STARTING = """
closed_soon = connect(conn.fd())
zygote = broker()["zygote"]
for number in (1, 2, 3, 4):
    kill_worker(number)
os.kill(zygote, signal.SIGSTOP)
assert connection()["incarnation"] == 4, "the pause before the next worker was over already"
wait_for(lambda: connection()["incarnation"] == 5)
join_anew(conn)
closed_soon.close()
os.kill(zygote, signal.SIGCONT)
found = messages(conn, lambda each: each == "5:29")
say("read", [each for each in found if each.startswith("5:")] == [f"5:{n}" for n in range(30)], found)
stats = conn.stats()
say("figures", stats.messages_in - stats.read - stats.dropped - stats.buffered, stats.buffered)
"""


@pytest.fixture
def own_broker(tmp_path: Path) -> dict[str, str]:
    return {"TRUNKLINE_BROKER": f"ipc://{tmp_path}/b/broker.sock"}


def test_a_worker_that_starts_hears_which_holders_came_and_went(own_broker: dict[str, str]) -> None:
    with (
        WsServer(behave_numbered()) as server,
        Program(PRELUDE + STARTING, server.url, env=own_broker) as program,
    ):
        assert program.wait_line("read", 60).startswith("True"), program.lines
        assert program.wait_line("figures") == "0 0"
        assert program.end() == 0, program.lines


JOINED_LATE = """
wait_for(lambda: conn.stats().buffered == 29)
kill_worker(1)
wait_for(lambda: conn.stats().messages_in == 60)
join_anew(conn)
found = messages(conn, lambda each: each == "2:29")
say("read", found == [f"1:{n}" for n in range(1, 30)] + [f"2:{n}" for n in range(30)], found)
say("quiet", repr(conn.read(100)))
stats = conn.stats()
say("figures", stats.messages_in - stats.read - stats.dropped - stats.buffered, stats.read)
"""


def test_an_object_that_joins_anew_hears_of_its_workers_end(own_broker: dict[str, str]) -> None:
    with (
        WsServer(behave_numbered()) as server,
        Program(PRELUDE + JOINED_LATE, server.url, env=own_broker) as program,
    ):
        assert program.wait_line("read", 60).startswith("True"), program.lines
        assert program.wait_line("quiet") == "None"
        assert program.wait_line("figures") == "0 60"
        assert program.end() == 0, program.lines


SHARED = """
wait_for(lambda: conn.stats().buffered == 29)
mine = [conn.read(5000) for _ in range(9)]
order, give = os.pipe()
child = os.fork()
if not child:
    theirs = [conn.read(5000) for _ in range(5)]
    say("child", *theirs)
    os.read(order, 1)
    say("child again", *messages(conn, lambda each: True))
    os.read(order, 1)
    os._exit(0)
sys.stdin.readline()
for pid in (broker()["pid"], conn.stats().pid):
    os.kill(pid, signal.SIGKILL)
found = messages(conn, lambda each: each.startswith("2:"))
say("parent", found[-1])
os.write(give, b"x")
sys.stdin.readline()
stats = conn.stats()
lacking = stats.messages_in - stats.read - stats.dropped - stats.buffered
say("figures", lacking, stats.messages_in, stats.holders)
os.write(give, b"x")
os.waitpid(child, 0)
"""


def test_parent_and_child_share_the_connection_that_is_dialled_anew(
    own_broker: dict[str, str],
) -> None:
    with (
        WsServer(behave_numbered()) as server,
        Program(PRELUDE + SHARED, server.url, env=own_broker) as program,
    ):
        theirs = program.wait_line("child").split()
        assert len(theirs) == 5
        program.tell()
        assert program.wait_line("parent").startswith("2:")
        assert program.wait_line("child again").startswith("2:")
        assert len(server.requests) == 2
        program.tell()
        assert program.wait_line("figures") == "0 60 2"
        assert program.end() == 0, program.lines


STOPPED = """
old = conn.stats().pid
os.kill(old, signal.SIGSTOP)
os.kill(broker()["pid"], signal.SIGKILL)
say("read", messages(conn, lambda each: each == "2:29")[-1])
os.kill(old, signal.SIGCONT)
seen = set()

def is_gone(pid):
    seen.update(row["pid"] for row in broker()["connections"])
    return not os.path.exists(f"/proc/{pid}")

wait_for(lambda: is_gone(old))
say("taken back", old in seen)
say("open", conn.stats().state)
"""


def test_a_stopped_worker_whose_connection_was_dialled_anew_ends_at_once(
    own_broker: dict[str, str],
) -> None:
    """It would take messages of a queue that the connection which has replaced it is to read."""
    with (
        WsServer(behave_numbered()) as server,
        Program(PRELUDE + STOPPED, server.url, env=own_broker) as program,
    ):
        assert program.wait_line("read", 60) == "2:29"
        assert program.wait_line("taken back", 60) == "False"
        assert program.wait_line("open") == "open"
        assert program.end() == 0, program.lines

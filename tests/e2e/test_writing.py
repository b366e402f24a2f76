"""Writing: order, threads, deadlines, and what is never sent."""

from __future__ import annotations

from tests.support.faultproxy import FaultProxy
from tests.support.servers import WsServer, hold
from tests.support.sockets import SocketServer, deaf, echo
from tests.support.waiting import Background, until
from trunkline import Dial
from trunkline.connection import Connection
from trunkline.deadline import Deadline


def dial(address: str, **options: object) -> Connection:
    conn = Dial(address, options)
    assert conn is not None
    return conn


def test_a_thread_that_waits_in_read_does_not_hold_up_writes() -> None:
    with SocketServer(echo) as server, dial(server.url) as conn:
        waiting = Background(conn.read)
        assert conn.read(20) is None
        assert conn.write("ping") == 4
        assert waiting.result() == "ping"


def test_writes_of_one_thread_keep_their_order_beside_those_of_others() -> None:
    with WsServer(hold) as server, dial(server.url) as conn:

        def work(name: str) -> None:
            for number in range(100):
                assert conn.write(f"{name}{number}")

        workers = [Background(lambda n=n: work(n)) for n in "abc"]
        for worker in workers:
            worker.result()
        received = [str(m) for m in server.wait_received(300)]
        for name in "abc":
            assert [m for m in received if m[0] == name] == [f"{name}{n}" for n in range(100)]
        assert conn.stats().messages_out == 300


def test_a_large_message_arrives_whole() -> None:
    data = bytes(range(256)) * 40_000
    with WsServer(hold, max_size=None) as server, dial(server.url) as conn:
        assert conn.write(data) == len(data)
        assert server.wait_received(1) == [data]


def test_what_a_deaf_peer_took_is_said_truly() -> None:
    with SocketServer(deaf) as server, dial(server.url) as conn:
        deadline, taken = Deadline(30), 0
        while count := conn.write(b"x" * 3_000_000, 200):
            taken += count
            assert not deadline.expired()
        assert taken
        assert conn.write(b"y", 100) == 0


def test_an_empty_message() -> None:
    with WsServer(hold) as server, dial(server.url) as conn:
        assert conn.write("") == 0
        assert conn.write("a") == 1
        assert [m for m in server.wait_received(1) if m] in ([], ["a"])


def test_a_write_that_waits_when_the_link_breaks_ends_and_is_not_sent_again() -> None:
    with (
        WsServer(hold, max_size=None) as server,
        FaultProxy(server.port) as proxy,
        dial(f"ws://{proxy.address}", reconnect=True, interval=10) as conn,
    ):
        proxy.stall("up")
        writing = Background(lambda: [conn.write(b"x" * 4_000_000, 20_000) for _ in range(8)])
        assert conn.read(100) is None
        assert writing.running()
        proxy.reset()
        proxy.heal()
        assert 0 in writing.result()
        until(lambda: conn.write("new"), "the link")
        until(lambda: "new" in server.received, "the new message")

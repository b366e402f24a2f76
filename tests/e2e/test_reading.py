"""Reading by several holders: threads, objects and processes compete for one buffer."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys

import pytest

from tests.support.servers import WsServer, hold
from tests.support.sockets import SocketServer, UdpServer, say
from tests.support.waiting import Background, until
from trunkline import Dial, connect
from trunkline.deadline import Deadline
from trunkline.errors import BrokenError
from trunkline.message import Message
from trunkline.proxy import reasons
from trunkline.proxy.connection import Connection

CHILD = """
import sys
from trunkline import Dial
conn = Dial(int(sys.argv[1]))
print(conn.read(20000), flush=True)
sys.stdin.readline()
"""


def dial(address: str, **options: object) -> Connection:
    conn = Dial(address, options)
    assert conn is not None
    return conn


def second(conn: Connection) -> Connection:
    other = Dial(conn.fd())
    assert other is not None
    return other


def arrive(conn: Connection, count: int) -> None:
    until(lambda: conn.stats().messages_in >= count, f"{count} arrivals")


def test_a_second_object_reads_what_the_first_has_not() -> None:
    with WsServer(hold) as server, dial(server.url) as conn:
        for number in range(6):
            server.send_all(str(number))
        arrive(conn, 6)
        assert conn.read() == "0"
        with second(conn) as other:
            assert [other.read(5000), conn.read(5000), other.read(5000)] == ["1", "2", "3"]
            assert other.read(-1) == "4"
            assert conn.read(-1) == "5"
            assert [conn.read(-1), other.read(-2), conn.read(20)] == [None, None, None]
            server.send_all("a")
            server.send_all("b")
            arrive(conn, 8)
            assert other.read(-2) == "b"
            assert conn.read(-1) is None
            assert conn.stats().holders == 2
        server.send_all("c")
        assert conn.read(5000) == "c"


def test_nothing_lies_with_an_idle_holder_while_another_waits() -> None:
    with WsServer(hold) as server, dial(server.url) as conn, second(conn) as other:
        assert conn.read(20) is None
        for number in range(50):
            server.send_all(str(number))
            assert other.read(5000) == str(number)


def test_each_object_sees_each_outage() -> None:
    with (
        WsServer(hold) as server,
        dial(server.url, reconnect=True, interval=10) as conn,
        second(conn) as other,
    ):
        for outage in range(1, 3):
            server.drop_all()
            until(lambda n=outage: conn.stats().reconnects == n, "the new link")
            server.wait_live(1)
            server.send_all("a")
            server.send_all("b")
            arrive(conn, 2 * outage)
            assert [conn.read(5000), other.read(5000), conn.read(5000), other.read(5000)] == [
                "",
                "",
                "a",
                "b",
            ]


def test_several_objects_at_the_end_of_a_link() -> None:
    with WsServer(hold) as server, dial(server.url) as conn, second(conn) as other:
        server.send_all("last")
        arrive(conn, 1)
        server.drop_all()
        until(lambda: conn.stats().state == "lost", "the loss")
        assert conn.read(5000) == "last"
        for reader in (conn, other) * 2:
            assert [reader.read(form) for form in (None, -1, 100, -2)] == [""] * 4


def test_waiting_readers_are_served_one_message_each() -> None:
    with WsServer(hold) as server, dial(server.url) as conn, second(conn) as other:
        waiting = [Background(lambda c=c: c.read(20_000)) for c in (conn, other, conn, other)]
        for number in range(4):
            server.send_all(str(number))
        assert sorted(str(reader.result()) for reader in waiting) == ["0", "1", "2", "3"]


def test_an_object_that_is_collected_gives_back_what_it_had() -> None:
    with WsServer(hold) as server, dial(server.url) as conn:
        kept = conn.fd()
        for number in range(5):
            server.send_all(str(number))
        lost = Dial(kept)
        assert lost is not None
        conn.close()
        arrive(lost, 5)
        assert [lost.read(5000), lost.read(5000)] == ["0", "1"]
        with second(lost) as other:
            del lost
            gc.collect()
            until(lambda: other.stats().holders == 1, "the collection")
            assert [other.read(5000) for _ in range(3)] == ["2", "3", "4"]


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_dies_gives_back_what_it_had(signum: int) -> None:
    with WsServer(hold) as server, dial(server.url) as conn:
        handle = conn.fd()
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(handle)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with child:
            assert child.stdout
            until(lambda: conn.stats().holders == 2, "the child")
            server.send_all("0")
            assert child.stdout.readline() == "0\n"
            for number in range(1, 4):
                server.send_all(str(number))
            os.kill(child.pid, signum)
            child.wait(10)
        got = [conn.read(10_000) for _ in range(3)]
        assert got == ["1", "2", "3"]


def test_one_reader_closes_while_others_wait() -> None:
    with WsServer(hold) as server, dial(server.url) as conn:
        other = second(conn)
        waiting = Background(lambda: conn.read(20_000))
        assert other.read(20) is None
        other.close()
        server.send_all("on")
        assert waiting.result() == "on"


def test_a_timeout_ends_in_time_with_and_without_other_readers() -> None:
    with WsServer(hold) as server, dial(server.url) as conn, second(conn) as other:
        waiting = Background(conn.read)
        deadline = Deadline(5)
        assert [conn.read(50), conn.read(-1), other.read(50), other.read(-1), other.read(-2)] == [
            None
        ] * 5
        assert not deadline.expired()
        server.send_all("x")
        assert waiting.result() == "x"


def test_iteration_passes_over_outages_that_are_mended() -> None:
    with WsServer(hold) as server, dial(server.url, reconnect=True, interval=10) as conn:
        messages = iter(conn)
        server.send_all("a")
        assert next(messages) == "a"
        server.drop_all()
        until(lambda: conn.stats().reconnects == 1, "the new link")
        server.wait_live(1)
        server.send_all("b")
        assert next(messages) == "b"


def test_a_character_that_is_never_finished_is_bytes() -> None:
    with SocketServer(say(b"ab\xe2\x82")) as server, dial(server.url) as conn:
        assert conn.read(5000) == "ab"
        assert conn.read(5000) == b"\xe2\x82"


def test_datagrams_stay_whole_the_empty_one_too() -> None:
    with UdpServer(lambda data: [b"", b"x" * 5000, b"\xff"]) as server, dial(server.url) as conn:
        assert conn.write("go") == 2
        got = [conn.read(5000) for _ in range(3)]
        assert got == ["", "x" * 5000, b"\xff"]


def test_connect_gives_messages_of_any_kind_and_none_for_nothing() -> None:
    with WsServer(hold) as server, connect(server.url) as conn:
        server.wait_live(1)
        server.send_all("")
        server.send_all(b"\xff")
        assert [conn.read(5000), conn.read(5000), conn.read(10)] == ["", b"\xff", None]


def test_an_empty_message_is_told_from_a_lost_link_by_receive_and_by_connect() -> None:
    with WsServer(hold) as server, dial(server.url) as conn, connect(server.url) as raising:
        server.wait_live(2)
        server.send_all("")
        message = conn.receive(5000)
        assert isinstance(message, Message)
        assert message.data == ""
        assert raising.read(5000) == ""
        server.drop_all()
        assert conn.receive(5000) == ""
        with pytest.raises(BrokenError):
            raising.read(5000)


@pytest.mark.parametrize("options", ["", "|reconnect=true&interval=60000"])
def test_a_loss_that_was_taken_in_before_the_read_is_read_without_waiting(options: str) -> None:
    with WsServer() as server, dial(server.url + options) as conn:
        server.drop_all()
        until(lambda: conn.watch()[0])
        until(
            lambda: conn.read(-1) == ""
        )  # a busy worker may answer too late for the first of them


def test_a_read_after_close_tells_why_once() -> None:
    with WsServer() as server:
        conn = dial(server.url)
        conn.close()
        conn.read(-1)
        assert (
            reasons.last() == f"{server.url}: read on a connection that you have closed; dial again"
        )
        reasons.last(clear=True)
        conn.read(-1)
        assert reasons.last() is None

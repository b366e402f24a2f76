"""Writing: order, threads, deadlines, and what is never sent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.support.servers import WsServer, echo_messages, hold
from tests.support.sockets import SocketServer, UdpServer, deaf, echo
from tests.support.waiting import Background, until
from trunkline import Dial, connect, last_error
from trunkline.deadline import Deadline
from trunkline.errors import AddressError, RefusedError, Unsupported
from trunkline.proxy.connection import Connection
from trunkline.testing.faultproxy import FaultProxy


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
        assert conn.write(HALF) == 0
        assert last_error() is not None
        assert conn.write("") == 0
        assert last_error() is None, "the 0 is no failure"
        assert conn.write("a") == 1
        assert [m for m in server.wait_received(1) if m] in ([], ["a"])


HALF = "a\ud800b"


@pytest.mark.parametrize("scheme", ["tcp", "udp", "ws"])
def test_half_a_surrogate_pair_is_refused_in_words(scheme: str) -> None:
    with _echoing(scheme) as address, dial(address) as conn, connect(address) as raising:
        assert conn.write(HALF) == 0
        assert "the text has half of a surrogate pair ('\\ud800' at position 1)" in str(
            last_error()
        )
        with pytest.raises(RefusedError, match="half of a surrogate pair"):
            raising.write(HALF)
        for topic in (HALF, "t"):
            with pytest.raises(RefusedError if topic == HALF else Unsupported):
                raising.write("x", topic=topic)
        assert conn.write("still") == 5
        assert conn.read(5000) == "still"


@pytest.mark.parametrize(
    "options", [{"origin": HALF}, {"headers": {"X": HALF}}, {"payload": [HALF]}, {HALF: 1}]
)
def test_half_a_surrogate_pair_in_an_option_is_refused_at_once(options: dict[str, object]) -> None:
    with pytest.raises(AddressError, match="must be valid text: it holds half of a surrogate pair"):
        connect("ws://127.0.0.1:1/", options)


def test_a_datagram_that_is_too_big_is_no_timeout() -> None:
    with UdpServer() as server, dial(server.url) as conn, connect(server.url) as raising:
        assert conn.write(bytes(70_000)) == 0
        assert "is too big (udp takes 65,507 at most)" in str(last_error())
        with pytest.raises(RefusedError, match="a datagram of 70,000 bytes to"):
            raising.write(bytes(70_000))
        assert raising.write("x") == 1


@contextlib.contextmanager
def _echoing(scheme: str) -> Iterator[str]:
    """The address of a server that sends everything back."""
    if scheme == "ws":
        with WsServer(echo_messages) as server:
            yield server.url
    elif scheme == "udp":
        with UdpServer() as udp:
            yield udp.url
    else:
        with SocketServer(echo) as tcp:
            yield tcp.url


def test_a_write_that_waits_when_the_link_breaks_ends_and_is_not_sent_again() -> None:
    with (
        WsServer(hold, max_size=None) as server,
        FaultProxy(server.port) as proxy,
        dial(f"ws://{proxy.address}", reconnect=True, interval=10) as conn,
    ):
        for pause_ms in (100, 1000, 5000):  # on a busy machine no write waits yet after a short one
            proxy.stall("up")
            writing = Background(lambda: [conn.write(b"x" * 4_000_000, 20_000) for _ in range(8)])
            assert conn.read(pause_ms) is None
            assert writing.running()
            proxy.reset()
            proxy.heal()
            taken = writing.result(120)
            until(lambda: conn.write("up?"), "the link", 20)
            while conn.read(-1) is not None:  # the outage
                pass
            if 0 in taken:
                break
        assert 0 in taken
        until(lambda: conn.write("new"), "the link")
        until(lambda: "new" in server.received, "the new message")

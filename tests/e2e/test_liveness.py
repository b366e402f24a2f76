"""Dead peers are noticed, living ones are left alone, and writes keep a pace; with both WebSocket engines."""

from __future__ import annotations

import collections
import itertools
import logging
import time

import pytest

from tests.support.servers import WsServer, feed
from tests.support.sockets import Peer, SocketServer
from tests.support.waiting import Background, until
from tests.support.websocket_peer import silent_after, upgrade
from trunkline import Dial, connect, last_error
from trunkline.proxy.connection import Connection

BIG = b"x" * 60_000


def dial(address: str, **options: object) -> Connection:
    conn = Dial(address, options)
    assert conn is not None, last_error()
    return conn


def slow_frame(peer: Peer) -> None:
    """One text message of many pieces, for two seconds; then nothing but pings of its own."""
    upgrade(peer)
    data = b"\x81\x7e" + len(BIG).to_bytes(2, "big") + BIG
    for start in range(0, len(data), 3000):
        peer.send(data[start : start + 3000])
        time.sleep(0.1)
    while not peer.stopping.wait(0.1):
        peer.send(b"\x89\x04ping")


def slow_taker(peer: Peer) -> None:
    """Reads a long message slowly and answers no ping; then says that it has it."""
    upgrade(peer)
    size = 0
    while size < 6_000_000:
        size += len(peer.read(60_000))
        time.sleep(0.02)
    peer.send(b"\x81\x03got")
    while peer.read():
        peer.send(b"\x8a\x00")


class TestWs:
    @pytest.mark.parametrize("kind", ["text", "control"])
    def test_a_peer_that_takes_all_and_says_nothing_is_lost(self, kind: str) -> None:
        def mute(peer: Peer) -> None:
            upgrade(peer)
            while peer.read():
                pass

        with (
            SocketServer(mute) as server,
            dial(f"ws://127.0.0.1:{server.port}", pingInterval=150, pingType=kind) as conn,
        ):
            assert conn.read(20_000) == ""
            assert "nothing came from the peer" in str(conn.stats().last_error)
            assert conn.stats().state == "lost"

    def test_a_frame_that_flows_for_long_is_life_and_data_and_pings_are_no_data(self) -> None:
        with SocketServer(slow_frame) as server:
            address = f"ws://127.0.0.1:{server.port}"
            with dial(address, pingInterval=150, idle=800) as conn:
                assert conn.read(20_000) == BIG.decode()
                assert conn.read(20_000) == ""
                assert "option idle" in str(conn.stats().last_error)

    def test_our_own_message_that_is_taken_slowly_is_life(self) -> None:
        with SocketServer(slow_taker) as server:
            address = f"ws://127.0.0.1:{server.port}"
            with dial(address, pingInterval=200, pingTimeout=1500) as conn:
                data = "y" * 6_000_000
                writing = Background(lambda: conn.write(data, 30_000))
                assert conn.read(30_000) == "got"
                assert writing.result() == len(data)
                assert conn.stats().outages == 0


@pytest.mark.own_broker  # workers are forked by the broker and have its environment
class TestWsWithWebsocketClient(TestWs):
    @pytest.fixture(autouse=True)
    def _engine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRUNKLINE_WS_ENGINE", "websocket-client")


def test_a_peer_that_need_not_answer() -> None:
    with (
        SocketServer(silent_after(b"")) as server,
        dial(f"ws://127.0.0.1:{server.port}|pingInterval=20&pingTimeout=0&pingType=text") as conn,
    ):
        until(lambda: conn.stats().messages_out > 20, "keepalives")
        assert conn.stats().state == "open"


def test_tcp_keepalives_count_what_comes_back() -> None:
    quiet = [False]

    def some(peer: Peer) -> None:
        while not peer.stopping.wait(0.1):
            if not quiet[0]:
                peer.send(b".")

    with SocketServer(some) as server, dial(server.url, pingMessage="hi", pingInterval=200) as conn:
        until(lambda: conn.stats().messages_out > 6, "keepalives")
        assert conn.stats().state == "open"
        quiet[0] = True
        until(lambda: conn.stats().state == "lost", "the loss", 20)
        assert "nothing came from the peer" in str(conn.stats().last_error)


def test_a_full_buffer_is_no_silence_of_the_peer() -> None:
    """tcp stops reading when its buffer is full: neither keepalive nor idle may end the link then."""

    def pour(peer: Peer) -> None:
        for _ in range(400):
            peer.send(b"z" * 65536)
        while peer.read():
            pass

    options: dict[str, object] = {
        "pingMessage": "hi",
        "pingInterval": 100,
        "idle": 300,
        "buffer": 5,
    }
    with SocketServer(pour) as server, dial(server.url, decode="bytes", **options) as conn:
        until(lambda: conn.stats().messages_out > 12, "keepalives")
        assert conn.stats().state == "open"
        size = 0
        while size < 400 * 65536:
            chunk = conn.read(10_000)
            assert isinstance(chunk, bytes)
            size += len(chunk)


def test_payloads_and_writes_keep_the_pace() -> None:
    at: list[tuple[float, str | bytes]] = []

    def note(connection: object) -> None:
        at.extend((time.monotonic(), message) for message in connection)  # type: ignore[attr-defined]

    with WsServer(note) as server:
        payload = ["p0", "p1", "p2"]
        with connect(server.url, payload=payload, payloadInterval=150, limit="5/s") as conn:
            other = Dial(conn.fd())
            assert other is not None
            with other:
                writers = [
                    Background(lambda c=c, n=n: [c.write(f"{n}{i}") for i in range(5)])
                    for n, c in enumerate((conn, other))
                ]
                assert [w.result(30) for w in writers] == [[2] * 5] * 2
                until(lambda: len(at) == 13, "all messages")
                with pytest.raises(TimeoutError, match="limit=5/s"):
                    collections.deque((conn.write("late", 10) for _ in range(6)), maxlen=0)
    times = [t for t, _ in at]
    assert [m for _, m in at[:3]] == payload
    assert all(later - earlier > 0.1 for earlier, later in itertools.pairwise(times[:3]))
    assert times[12] - times[0] > 2.0  # the thirteenth message is in the third second
    assert not any(m == "late" for _, m in at[:13])


def test_dropped_messages_are_told_at_the_first_and_not_for_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "trunkline")
    with WsServer(feed(5000)) as server, dial(server.url, buffer=100) as conn:
        until(lambda: conn.stats().dropped == 4900, "the drops")
        until(lambda: any("dropped" in r.getMessage() for r in caplog.records), "the line")
    lines = [r.getMessage() for r in caplog.records if "dropped" in r.getMessage()]
    assert len(lines) == 1
    assert "give buffer=n" in lines[0]

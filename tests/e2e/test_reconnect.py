"""What survives: outages, killed workers, floods, readers that come and go."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest
from websockets.http11 import Request
from websockets.sync.server import ServerConnection

from tests.support.servers import WsServer, close_with, feed, hold
from tests.support.sockets import Peer, SocketServer
from tests.support.waiting import Background, until
from trunkline import Dial
from trunkline.actors.stream.flapping import FREE, RATE
from trunkline.deadline import Deadline
from trunkline.proxy.connection import Connection
from trunkline.testing.faultproxy import FaultProxy


def dial(address: str, **options: object) -> Connection:
    conn = Dial(address, options)
    assert conn is not None
    return conn


def arrive(conn: Connection, count: int) -> None:
    until(lambda: conn.stats().messages_in >= count, f"{count} arrivals")


def kill_worker(conn: Connection) -> None:
    stats = conn.stats()
    os.kill(stats.pid, signal.SIGKILL)
    until(lambda: conn.stats().pid not in (0, stats.pid), "another worker")


def read_until(conn: Connection, last: str, form: int = 100) -> list[str | bytes | None]:
    got: list[str | bytes | None] = []
    deadline = Deadline(20)
    while not got or got[-1] != last:
        assert not deadline.expired(), got[-20:]
        got.append(conn.read(form))
    return got


@pytest.mark.parametrize("form", [-1, 100, 0])
def test_a_killed_worker_is_replaced_and_what_the_reader_had_is_read_first(form: int) -> None:
    with WsServer(hold) as server, dial(server.url, reconnect=True, interval=20) as conn:
        for number in range(5):
            server.send_all(f"a{number}")
        arrive(conn, 5)
        assert conn.read() == "a0"  # the rest is in the pocket now
        kill_worker(conn)
        server.wait_connections(2)
        server.wait_live(1)
        until(lambda: conn.stats().state == "open", "the new link")
        server.send_all("b0")
        server.send_all("end")
        got = [m for m in read_until(conn, "end", form) if m is not None]
        messages = [m for m in got if m]
        assert messages == ["a1", "a2", "a3", "a4", "b0", "end"]
        assert "" in got[got.index("a4") : got.index("b0")]
        stats = conn.stats()
        assert (stats.incarnation, stats.outages, stats.reconnects) == (2, 1, 1)


def test_a_read_that_waits_sees_that_the_worker_was_killed_and_the_next_one_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with WsServer(hold) as server, dial(server.url, reconnect=True, interval=20) as conn:
        waiting = Background(conn.read)
        assert conn.read(30) is None
        os.kill(conn.stats().pid, signal.SIGKILL)
        assert waiting.result() == ""
        waiting = Background(lambda: read_until(conn, "on", 0))
        server.wait_connections(2)
        until(lambda: server.send_all("on") or not waiting.running(), "reading goes on")
        assert set(waiting.result()) <= {"", "on"}
        until(lambda: "is open again after" in caplog.text, "the line of the log")


def test_without_reconnect_a_killed_worker_is_the_end() -> None:
    with WsServer(hold) as server, dial(server.url) as conn:
        server.send_all("a")
        arrive(conn, 1)
        os.kill(conn.stats().pid, signal.SIGKILL)
        assert [conn.read(20_000), conn.read(20_000), conn.read(-1), conn.read(-2)] == [
            "a",
            "",
            "",
            "",
        ]
        assert conn.write("x") == 0


def test_two_readers_go_on_with_the_next_worker() -> None:
    with WsServer(hold) as server, dial(server.url, reconnect=True, interval=20) as conn:
        other = Dial(conn.fd())
        assert other is not None
        with other:
            kill_worker(conn)
            server.wait_connections(2)
            server.wait_live(1)
            both = [Background(lambda c=c: read_until(c, "x", 50)) for c in (conn, other)]
            until(lambda: server.send_all("x") or not any(b.running() for b in both), "both read")
            for reader in both:
                assert "" in reader.result()


def test_every_message_of_a_flood_is_read_or_counted() -> None:
    count = 200_000
    with WsServer(feed(count)) as server, dial(server.url) as conn:
        got: list[int] = []
        deadline = Deadline(60)
        while not got or got[-1] != count - 1:
            assert not deadline.expired(), got[-1:]
            message = conn.read(1000)
            if message:
                got.append(int(message))
            if len(got) % 5000 == 1:  # slow in part: other work, and looks at the figures
                conn.stats()
                conn.stats()
        until(lambda: conn.stats().buffered == 0, "the last acknowledgement")
        stats = conn.stats()
        assert got == sorted(set(got))
        assert stats.messages_in == count
        assert len(got) + stats.dropped == count
        assert stats.peak <= 2000


def test_a_flood_between_two_readers_reaches_each_message_once() -> None:
    count = 20_000
    with WsServer(feed(count)) as server, dial(server.url, buffer=1_000_000) as conn:
        other = Dial(conn.fd())
        assert other is not None

        def work(reader: Connection) -> list[int]:
            got: list[int] = []
            while (message := reader.read(1000)) is not None:
                got.append(int(message))
            return got

        with other:
            both = [Background(lambda c=c: work(c)) for c in (conn, other)]
            first, second = (reader.result(60) for reader in both)
            assert first == sorted(first)
            assert second == sorted(second)
            assert sorted(first + second) == list(range(count))


def test_a_flood_of_bytes_loses_nothing() -> None:
    total = 30_000_000
    block = bytes(range(256)) * 256

    def pour(peer: Peer) -> None:
        for _ in range(total // len(block)):
            peer.send(block)
        peer.read()

    with SocketServer(pour) as server, dial(server.url, buffer=20, decode="bytes") as conn:
        size = 0
        while size < total // len(block) * len(block):
            chunk = conn.read(10_000)
            assert isinstance(chunk, bytes)
            assert chunk[0] == size % 256
            size += len(chunk)
        assert conn.stats().dropped == 0


def test_what_a_closed_reader_had_goes_to_the_next() -> None:
    with WsServer(hold) as server, dial(server.url) as conn:
        for number in range(300):
            server.send_all(str(number))
        arrive(conn, 300)
        assert [conn.read() for _ in range(10)] == [str(n) for n in range(10)]
        other = Dial(conn.fd())
        assert other is not None
        conn.close()
        with other:
            assert [other.read(5000) for _ in range(290)] == [str(n) for n in range(10, 300)]
            assert other.read(-1) is None


def test_a_link_that_is_cut_in_the_middle_of_messages() -> None:
    with WsServer(feed(100_000)) as server, FaultProxy(server.port) as proxy:
        proxy.slice(700, "down")
        proxy.cut_after(5_000, "down")
        with dial(f"ws://{proxy.address}", reconnect=True, interval=10) as conn:
            got = [conn.read(10_000) for _ in range(3000)]
        assert got[:3] == ["0", "1", "2"]
        runs = " ".join(str(m) or "|" for m in got).split("|")
        whole = [run.split() for run in runs if run.strip()]
        assert len(whole) > 1
        assert all(run == [str(n) for n in range(len(run))] for run in whole)


def test_giving_up_after_so_many_failures(caplog: pytest.LogCaptureFixture) -> None:
    with (
        WsServer(hold) as server,
        FaultProxy(server.port) as proxy,
        dial(f"ws://{proxy.address}", reconnect=True, interval=5, retry=2) as conn,
    ):
        proxy.refuse()
        proxy.cut()
        until(lambda: conn.stats().state == "failed", "giving up")
        assert [conn.read(form) for form in (-1, None, 200, -2)] == [""] * 4
        assert list(conn) == []
        proxy.heal()
        assert conn.write("x") == 0
        assert any("given up" in record.getMessage() for record in caplog.records)


def test_a_link_that_comes_and_goes_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    with (
        WsServer(hold) as server,
        FaultProxy(server.port) as proxy,
        dial(f"ws://{proxy.address}", reconnect=True, interval=5, retry=1) as conn,
    ):
        for outage in range(1, 4):
            proxy.cut()
            until(lambda n=outage: conn.stats().reconnects == n, "the new link")
        assert conn.stats().state == "open"
        # the end of an outage is in the log at the level of its beginning, and says how long it was
        until(lambda: caplog.text.count("is there again after") == 3, "the lines of the log")
        words = ("was lost", "is there again after")
        levels = {
            r.levelname for r in caplog.records if any(word in r.getMessage() for word in words)
        }
        assert levels == {"WARNING"}


def test_the_outage_that_a_killed_worker_made_is_told_with_its_own_length(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The successor began to count at the machine's start once."""
    with WsServer(hold) as server, dial(server.url, reconnect=True, interval=5) as conn:
        begun = time.monotonic()
        kill_worker(conn)
        until(lambda: "is there again after" in caplog.text, "the line of the log")
        elapsed = time.monotonic() - begun
    told = re.findall(r"is there again after ([0-9.]+) s", caplog.text)
    assert all(float(seconds) <= elapsed + 1 for seconds in told), (told, elapsed)


def test_links_that_flap_take_turns_over_all_connections() -> None:
    """Each would come back 100 times a second."""
    links, asked = 4, 40

    def note(ws: ServerConnection, request: Request) -> None:
        times.append(time.monotonic())

    times: list[float] = []
    with WsServer(close_with(1000), on_request=note) as server:
        options = {"reconnect": True, "interval": 10, "maxInterval": 10}
        conns = [dial(server.url, **options) for _ in range(links)]
        free = links * (FREE + 1)
        server.wait_connections(free + asked, 60)
        for conn in conns:
            conn.close()
    processors = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    paced = sorted(times)[free : free + asked]
    # Half the time, because two that ask at the same moment may have the same turn.
    assert paced[-1] - paced[0] > 0.5 * (asked - 1) / (RATE * processors)

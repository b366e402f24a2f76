"""The figures add up whatever happens: workers killed at random moments, a reader that is slow in part."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import threading
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from tests.support.servers import WsServer
from tests.support.waiting import until
from trunkline import BrokenError, Dial, connect
from trunkline.deadline import Deadline
from trunkline.proxy import process
from trunkline.proxy.connection import Connection
from trunkline.wire import endpoint, values
from trunkline.wire.envelope import Kind
from trunkline.wire.stats import Stats

pytestmark = pytest.mark.own_broker

KILLS = 4
"""One less than what makes the supervisor give up."""
BURST = 40


class Numbered:
    """A feed at full speed: `link n padding`, `n` from 1 on each link, until it is told to end."""

    def __init__(self, padding: int) -> None:
        self.sent: list[int] = []
        self.ending = threading.Event()
        self._padding = "x" * padding

    def __call__(self, ws: ServerConnection) -> None:
        link = len(self.sent)
        self.sent.append(0)
        try:
            while not self.ending.is_set():
                for _ in range(BURST):
                    self.sent[link] += 1
                    ws.send(f"{link} {self.sent[link]} {self._padding}")
            ws.send("end")
            for _ in ws:
                pass
        except ConnectionClosed:
            pass


class Reader:
    """Reads all there is; `seen` is what it got of each link."""

    def __init__(self, conn: Connection, rng: random.Random) -> None:
        self.conn = conn
        self.seen: dict[int, list[int]] = {}
        self.count = 0
        self.ended = False
        self._before = -1
        self._rng = rng

    def read(self, count: int) -> None:
        """So many messages, or until the feed has ended."""
        deadline = Deadline(30)
        goal = self.count + count
        while self.count < goal and not self.ended:
            assert not deadline.expired(), self.conn.stats()
            message = self.conn.read(100)
            if isinstance(message, str) and message:
                self._take(message)

    def read_link(self) -> None:
        """Until something has come of a link that is younger than the last worker. Not of the next one: an
        attempt to dial that took too long may have made that, and nobody has read from it."""
        while max(self.seen, default=-1) <= self._before:
            self.read(1)

    def worker(self) -> int:
        """The process that is killed next."""
        pid = self.conn.stats().pid
        assert pid
        self._before = max(self.seen)
        return pid

    def _take(self, message: str) -> None:
        self.count += 1
        if message == "end":
            self.ended = True
            return
        link, number, _ = message.split(" ")
        self.seen.setdefault(int(link), []).append(int(number))
        if self._rng.random() < 0.0005:  # slow in part
            threading.Event().wait(0.01)

    def gaps(self) -> int:
        """What is missing before the last message that was read of each link."""
        return sum(numbers[-1] - len(numbers) for numbers in self.seen.values())

    def tails(self, sent: list[int]) -> int:
        """What was sent on each link after that, which may have been received or not."""
        return sum(count - (self.seen.get(link) or [0])[-1] for link, count in enumerate(sent))


def folder() -> Path:
    """The folder of the broker that this test's first Dial started."""
    return Path(os.environ["TRUNKLINE_BROKER"].removeprefix("ipc://")).parent


def settled(conn: Connection) -> Stats:
    until(lambda: conn.stats().buffered == 0, "the last acknowledgement")
    return conn.stats()


@pytest.mark.parametrize("padding", [0, 3000])
def test_workers_killed_at_random_moments_lose_nothing_that_is_not_counted(
    padding: int, rng: random.Random
) -> None:
    feed = Numbered(padding)
    with WsServer(feed, compression=None) as server:
        conn = Dial(server.url, reconnect=True, interval=10)
        assert conn is not None
        with conn:
            reader = Reader(conn, rng)
            for _ in range(KILLS):
                reader.read_link()
                reader.read(rng.randrange(1, 8000))
                if rng.random() < 0.5:  # a pocket that is full, a queue that overflows
                    threading.Event().wait(rng.random() * 0.2)
                os.kill(reader.worker(), signal.SIGKILL)
            reader.read_link()
            reader.read(2000)
            feed.ending.set()
            reader.read(1 << 30)
            stats = settled(conn)
            names = sorted(path.name[:2] for path in folder().glob("[fw]-*"))
            assert names == ["f-", "w-"]
    for numbers in reader.seen.values():
        assert numbers == sorted(set(numbers))
    assert stats.incarnation == KILLS + 1
    assert stats.read == reader.count
    assert stats.messages_in == stats.read + stats.dropped + stats.skipped + stats.buffered
    assert stats.messages_in <= sum(feed.sent) + 1
    assert reader.gaps() <= stats.dropped <= reader.gaps() + reader.tails(feed.sent)


@pytest.mark.parametrize("padding", [0, 3000])
def test_workers_killed_with_their_brokers_lose_nothing_that_is_not_counted(
    padding: int, rng: random.Random
) -> None:
    feed = Numbered(padding)
    with WsServer(feed, compression=None) as server:
        conn = Dial(server.url, reconnect=True, interval=10)
        assert conn is not None
        with conn:
            reader = Reader(conn, rng)
            for _ in range(KILLS):
                reader.read_link()
                reader.read(rng.randrange(1, 8000))
                broker = endpoint.holder(folder())
                assert broker is not None
                victims = [reader.worker(), broker]
                rng.shuffle(victims)
                for victim in victims:
                    os.kill(victim, signal.SIGKILL)
            reader.read_link()
            reader.read(2000)
            feed.ending.set()
            reader.read(1 << 30)
            stats = settled(conn)
    for numbers in reader.seen.values():
        assert numbers == sorted(set(numbers))
    assert stats.read == reader.count
    assert stats.messages_in == stats.read + stats.dropped + stats.skipped + stats.buffered
    assert stats.messages_in <= sum(feed.sent) + 1
    assert reader.gaps() <= stats.dropped <= reader.gaps() + reader.tails(feed.sent)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_brokers_that_end_before_the_connection_is_dialled_anew_keep_its_figures(
    number: signal.Signals,
) -> None:
    """Each of them has found what the lost worker left, and ends before another worker has it."""

    def behave(ws: ServerConnection) -> None:
        for each in range(30):
            ws.send(str(each))
        for _ in ws:
            pass

    with WsServer(behave) as server, Dial(server.url, reconnect=True, interval=10) as conn:  # type: ignore[union-attr]
        assert [conn.read() for _ in range(30)] == [str(each) for each in range(30)]
        settled(conn)
        worker, broker = conn.stats().pid, endpoint.holder(folder())
        assert worker
        assert broker
        for victim in (broker, worker):
            os.kill(victim, signal.SIGKILL)
        for _ in range(2):
            until(lambda b=broker: endpoint.holder(folder()) not in (None, b), "the next broker")  # type: ignore[misc]
            broker = endpoint.holder(folder())
            assert broker
            with contextlib.suppress(ProcessLookupError):
                os.kill(broker, number)
        read = 30
        while read < 60:
            message = conn.read(20_000)
            read += bool(message)
        stats = settled(conn)
        assert stats.read == stats.messages_in == 60


def test_what_a_killed_worker_had_sent_is_read_and_what_it_had_queued_is_dropped() -> None:
    def behave(ws: ServerConnection) -> None:
        for number in range(30):
            ws.send(str(number))
        for _ in ws:
            pass

    with WsServer(behave) as server, Dial(server.url, reconnect=True, interval=10) as conn:  # type: ignore[union-attr]
        assert conn.read() == "0"
        until(lambda: conn.stats().messages_in == 30, "arrivals")
        other = Dial(conn.fd())
        assert other is not None
        with other:  # two holders: what nobody has asked for stays with the worker
            assert other.read() in {"1", "2"}
            os.kill(conn.stats().pid, signal.SIGKILL)
            server.wait_connections(2)
            until(lambda: conn.stats().messages_in == 60, "arrivals at the next worker")
            stats = conn.stats()
            assert stats.messages_in == stats.read + stats.dropped + stats.buffered
            assert stats.dropped + stats.read == 30
            assert stats.dropped >= 27


def test_a_worker_that_is_told_to_end_leaves_its_figures_to_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def behave(ws: ServerConnection) -> None:
        for number in range(30):
            ws.send(str(number))
        for _ in ws:
            pass

    with WsServer(behave) as server, Dial(server.url, reconnect=True, interval=10) as conn:  # type: ignore[union-attr]
        assert [conn.read() for _ in range(30)] == [str(number) for number in range(30)]
        os.kill(conn.stats().pid, signal.SIGTERM)
        server.wait_connections(2)
        until(lambda: conn.stats().messages_in == 60, "arrivals at the next worker")
        stats = conn.stats()
        assert stats.incarnation == 2
        assert stats.messages_in == stats.read + stats.dropped + stats.buffered
        assert stats.read >= 30
        until(lambda: "open again" in caplog.text, "the word of the next worker")
    hours = [float(found) for found in re.findall(r"again after ([\d.]+) s", caplog.text)]
    assert hours
    assert max(hours) < 60, caplog.text  # not since the machine was started
    until(lambda: not list(folder().glob("[fw]-*")), "the end of its files")


def test_without_reconnect_the_figures_in_ps_are_the_last_ones() -> None:
    feed = Numbered(0)
    with WsServer(feed, compression=None) as server:
        conn = Dial(server.url)
        assert conn is not None
        with conn:
            until(lambda: conn.stats().dropped > 0, "an overflow")
            os.kill(conn.stats().pid, signal.SIGKILL)

            def row() -> dict[str, object]:
                answer = values.unpack(process.get().link.ask_broker(Kind.LIST)[0])
                return dict(answer["connections"][0])

            until(lambda: row()["state"] == "failed", "the end")
            last = row()
            assert last["messages_in"] == int(str(last["read"])) + int(str(last["dropped"]))
            assert not list(folder().glob("[fw]-*"))


def test_a_broker_that_is_told_to_end_ends_its_connections_though_nobody_reads(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its words must not be thrown away where its end is noticed first: the figures went with them."""

    def behave(ws: ServerConnection) -> None:
        ws.send("x")
        for _ in ws:
            pass

    with WsServer(behave) as server, connect(server.url, reconnect=True, interval=10) as conn:
        assert conn.read() == "x"
        settled(conn)
        broker = endpoint.holder(folder())
        assert broker
        os.kill(broker, signal.SIGTERM)
        until(lambda: endpoint.holder(folder()) not in (None, broker), "another broker")
        with pytest.raises(BrokenError, match="the broker was stopped"):
            conn.read(20_000)
        assert "dialled anew" not in caplog.text

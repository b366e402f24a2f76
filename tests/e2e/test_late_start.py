"""A START that comes late, under a former name or by a stream that is closed, makes no object deaf.

The words of an object come by its stream, those of the broker about it another way: a worker that has just
taken over may see them in any order.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import closing

import msgpack
import pytest
from websockets.sync.server import ServerConnection

from tests.support.servers import WsServer
from tests.support.waiting import until
from trunkline import Connection, connect
from trunkline.deadline import Deadline
from trunkline.proxy import process
from trunkline.proxy.membership import attached
from trunkline.proxy.process import Client
from trunkline.proxy.routes.router import RouterRoute
from trunkline.proxy.routes.stream import StreamRoute
from trunkline.wire import endpoint
from trunkline.wire.envelope import BROKER, Kind


class ByHand:
    """A further holder of a connection, whose envelopes the test sends itself."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        client = process.current()
        assert client is not None
        self.client: Client = client
        self.router = client.link.new_router_route()
        self._had = 0
        self._asks = itertools.count(1)
        self.key = self._attach(self.router, conn.fd(), b"", b"")

    @property
    def name(self) -> bytes:
        return self.router.identity

    def _attach(self, router: RouterRoute, handle: int | None, key: bytes, old: bytes) -> bytes:
        fields = (self.client.link.control_id, handle or 0, key, old, 1, 0, [], 0)
        router.send(BROKER, Kind.ATTACH, 1, fields)
        return attached(router, Deadline(10), self.client)[0]

    def take_another_name(self) -> bytes:
        """As after a lost broker; the former name."""
        old, self.router = self.router, self.client.link.new_router_route()
        self._attach(self.router, None, self.key, old.identity)
        old.close()
        return old.identity

    def stream(self) -> StreamRoute:
        return StreamRoute(endpoint.door(self.client.link.address, self.key), self.key)

    def reads(self, stream: StreamRoute) -> bool:
        """Whether what is asked for by this stream comes by it."""
        stream.send(
            Kind.READ, (self.name, next(self._asks), 1, self._had, 0, True, False, 0, False)
        )
        self._conn.write("more")
        deadline = Deadline(10)
        while not deadline.expired():
            received = stream.peek(0.1)
            if received is not None:
                stream.done()
                if received[1] is Kind.PUSH:
                    self._had += len(msgpack.unpackb(received[4][0]))
                    return True
        return False

    def close(self) -> None:
        self.client.detach(self.key, self.name, 0, None, True)
        self.router.close()


@pytest.fixture
def conn() -> Iterator[Connection]:
    def behave(ws: ServerConnection) -> None:
        for number in range(30):
            ws.send(str(number))
        for message in ws:
            ws.send(message)

    with WsServer(behave) as server, connect(server.url) as conn:
        assert conn.read() == "0"
        yield conn


def start(stream: StreamRoute, name: bytes, serving: int = 0) -> None:
    stream.send(Kind.START, (name, False, 0, False, serving))


@pytest.mark.parametrize("again", [False, True])
def test_under_a_former_name(conn: Connection, again: bool) -> None:
    with closing(ByHand(conn)) as other, closing(other.stream()) as stream:
        start(stream, other.take_another_name())
        if again:
            start(stream, other.name)
        assert other.reads(stream)


def test_by_a_stream_that_is_closed(conn: Connection) -> None:
    with (
        closing(ByHand(conn)) as other,
        closing(other.stream()) as late,
        closing(other.stream()) as stream,
    ):
        start(stream, other.name)
        assert other.reads(stream)
        start(late, other.name)
        late.close()
        assert other.reads(stream)


def test_an_ask_that_reaches_another_broker_ends_nothing(conn: Connection) -> None:
    """ZeroMQ connects a socket by itself to whichever broker comes next."""
    with closing(ByHand(conn)) as other:
        fields = (other.name, 1, 1, 0, 0, False, False, 0, False)
        other.router.send(b"nowhere!", Kind.READ, 0, fields)
        received = other.router.receive(10)
        assert received is not None
        kind, told = received[1], received[3]
        assert (kind, told[0], told[2]) == (Kind.GONE, True, 0)
    conn._dialogue.handle((b"", kind, 0, told, []))
    conn.write("more")
    deadline = Deadline(10)
    while conn.read(1000) != "more":
        assert not deadline.expired()


def test_one_that_counts_for_a_former_worker_hears_that_it_is_gone() -> None:
    """The broker's word may come later: what this worker sends would be taken for the former one's."""

    def behave(ws: ServerConnection) -> None:
        for message in ws:
            ws.send(message)

    with (
        WsServer(behave) as server,
        connect(server.url, reconnect=True) as conn,
        closing(ByHand(conn)) as other,
    ):
        os.kill(conn.stats().pid or 0, signal.SIGKILL)
        until(
            lambda: (conn.stats().incarnation, conn.stats().state) == (2, "open"),
            "another worker",
            20,
        )
        with closing(other.stream()) as stream:
            start(stream, other.name, 1)
            received = stream.peek(10)
            assert received is not None
            assert (received[1], received[3][0], received[3][2]) == (Kind.GONE, True, 2)
        with closing(other.stream()) as stream:
            start(stream, other.name, 2)
            assert other.reads(stream)

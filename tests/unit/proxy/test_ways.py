"""The sockets of a program: through the broker's router, and straight to a worker."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.support.waiting import Background
from trunkline.errors import BrokerGone
from trunkline.proxy.routes.router import RouterRoute
from trunkline.proxy.routes.stream import StreamRoute
from trunkline.wire.envelope import Kind, header, parse
from trunkline.wire.framing import Unframer, frame

LIMIT_S = 20.0
LOST = header(Kind.CANCELLED, 0, 1)


class Worker:
    """A worker's end: a listener, and the socket of the one proxy that came."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.route = StreamRoute(path, b"key")
        self.sock, _ = self.listener.accept()
        self.sock.settimeout(LIMIT_S)

    def close(self) -> None:
        self.route.close()
        self.sock.close()
        self.listener.close()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path / "w")
    yield made
    made.close()


class TestStreamRoute:
    def test_what_is_said_arrives_in_order(self, worker: Worker) -> None:
        worker.route.send(Kind.CANCEL, (b"holder", 1))
        worker.route.last_word(Kind.CLOSING, (b"holder",))
        heads = [parse(head) for head, _ in Unframer().feed(worker.sock.recv(1000))]
        assert [(kind, fields) for kind, _, fields in heads] == [
            (Kind.CANCEL, [b"holder", 1]),
            (Kind.CLOSING, [b"holder"]),
        ]

    def test_a_message_stays_the_next_one_until_it_was_dealt_with(self, worker: Worker) -> None:
        route = worker.route
        assert route.quiet()
        worker.sock.sendall(frame(LOST, b"first") + frame(LOST, b"second"))
        first = route.peek(LIMIT_S)
        assert first == (b"key", Kind.CANCELLED, 0, [1], [b"first"])
        assert route.peek(0) == first
        assert not route.quiet()
        route.done()
        second = route.peek(0)
        assert second is not None
        assert second[4] == [b"second"]
        route.done()
        assert route.peek(0) is None

    def test_half_a_message_is_none(self, worker: Worker) -> None:
        whole = frame(LOST, b"body")
        worker.sock.sendall(whole[:5])
        assert worker.route.peek(0.01) is None
        worker.sock.sendall(whole[5:])
        assert worker.route.peek(LIMIT_S) is not None
        assert not worker.route.torn

    def test_the_end_comes_behind_everything_that_was_sent(self, worker: Worker) -> None:
        worker.sock.sendall(frame(LOST, b"last"))
        worker.sock.close()
        assert worker.route.peek(LIMIT_S) is not None
        worker.route.done()
        with pytest.raises(EOFError):
            worker.route.peek(LIMIT_S)

    def test_a_stopped_worker_holds_up_nobody_and_gets_all_when_it_goes_on(
        self, worker: Worker
    ) -> None:
        route, sent = worker.route, 0
        while not route.unsent:
            route.send(Kind.CANCEL, (b"holder" * 1000, sent))
            sent += 1
        route.last_word(Kind.CLOSING, (b"holder",))  # not said: something before it could not be
        numbers: list[int] = []
        unframer = Unframer()
        while len(numbers) < sent:
            messages = unframer.feed(worker.sock.recv(1 << 20))
            numbers += [parse(head)[2][1] for head, _ in messages]
            route.flush()
        assert numbers == list(range(sent))
        assert not route.unsent

    def test_a_wait_is_woken_by_another_thread(self, worker: Worker) -> None:
        def wait() -> str:
            try:
                worker.route.peek(LIMIT_S)
            except EOFError:
                return "woken"
            return "went on"

        waiting = Background(wait)
        worker.route.shut()
        assert waiting.result() == "woken"

    def test_a_worker_without_a_door_is_an_error_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            StreamRoute(tmp_path / "none", b"key")


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.term()


class TestRouterRoute:
    def test_messages_go_out_and_come_in(
        self, context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
    ) -> None:
        address = f"ipc://{tmp_path}/broker.sock"
        with context.socket(zmq.ROUTER) as router:
            router.bind(address)
            route = RouterRoute(context, address, 3)
            route.send(b"worker", Kind.CANCEL, 9, (b"holder", 1), b"body")
            identity, *frames = router.recv_multipart()
            assert identity == route.identity
            assert frames == [b"worker", header(Kind.CANCEL, 9, b"holder", 1), b"body"]
            assert route.receive(0) is None
            assert route.peek(0.01) is None
            router.send_multipart((identity, b"worker", LOST, b"body"))
            message = (b"worker", Kind.CANCELLED, 0, [1], [b"body"])
            assert route.peek(LIMIT_S) == message
            assert route.peek(0) == message
            route.done()
            router.send_multipart((identity, b"worker", LOST))
            assert route.receive(LIMIT_S) == (b"worker", Kind.CANCELLED, 0, [1], [])
            assert not route.torn
            route.close()
            assert route.closed

    def test_two_routes_have_two_names(
        self, context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
    ) -> None:
        routes = [RouterRoute(context, f"ipc://{tmp_path}/none.sock", 1) for _ in range(2)]
        assert routes[0].identity != routes[1].identity
        for route in routes:
            route.close()

    def test_too_many_sockets_are_said_in_words(self, tmp_path: Path) -> None:
        small: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        small.set(zmq.MAX_SOCKETS, 1)
        first = RouterRoute(small, f"ipc://{tmp_path}/none.sock", 1)
        with pytest.raises(BrokerGone, match=r"close connections or raise `ulimit -n`"):
            RouterRoute(small, f"ipc://{tmp_path}/none.sock", 1)
        first.close()
        small.term()

    def test_a_dropped_route_closes_its_socket(
        self, context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
    ) -> None:
        route = RouterRoute(context, f"ipc://{tmp_path}/none.sock", 1)
        sock = route.socket
        del route
        assert threading.active_count()
        sock.close()
        assert sock.closed

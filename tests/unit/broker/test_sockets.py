"""The broker's ZeroMQ socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from trunkline.broker.sockets import RouterSocket

WAIT_MS = 20_000


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/broker.sock"


@pytest.fixture
def router(address: str) -> Iterator[RouterSocket]:
    socket = RouterSocket(address)
    yield socket
    socket.close()


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as made:
        yield made


def peer(context: zmq.Context[Any], address: str, name: bytes) -> zmq.Socket[bytes]:
    made = context.socket(zmq.DEALER)
    made.setsockopt(zmq.IDENTITY, name)
    made.setsockopt(zmq.LINGER, 0)
    made.connect(address)
    return made


def receive(router: RouterSocket) -> list[bytes]:
    """The next message, once the descriptor tells of one."""
    poller = zmq.Poller()
    poller.register(router.fileno(), zmq.POLLIN)
    while (frames := router.receive()) is None:
        assert poller.poll(WAIT_MS), "no message"
    return frames


def test_messages_come_with_their_senders_and_go_to_their_receivers(
    router: RouterSocket, context: zmq.Context[Any], address: str
) -> None:
    assert router.receive() is None
    with peer(context, address, b"one") as one:
        one.send_multipart([b"a", b"b"])
        assert receive(router) == [b"one", b"a", b"b"]
        assert router.send([b"one", b"c"])
        assert one.poll(WAIT_MS)
        assert one.recv_multipart() == [b"c"]


def test_a_peer_that_is_not_there_is_noticed(router: RouterSocket) -> None:
    assert not router.send([b"nobody", b"c"])


def test_a_socket_whose_file_was_removed_is_there_again(
    router: RouterSocket, context: zmq.Context[Any], address: str, tmp_path: Path
) -> None:
    with peer(context, address, b"one") as one:
        one.send(b"a")
        receive(router)
        (tmp_path / "broker.sock").unlink()
        router.bind_again()
        with peer(context, address, b"two") as two:
            two.send(b"b")
            assert receive(router) == [b"two", b"b"]
        one.send(b"again")  # it has connected again by itself
        assert receive(router) == [b"one", b"again"]
        assert router.send([b"one", b"c"])
        assert one.poll(WAIT_MS)
        assert one.recv() == b"c"

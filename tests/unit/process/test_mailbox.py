"""The worker's mailbox: which way a message to a holder goes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import zmq

from tests.support.waiting import until_async
from trunkline.actors.process.door import Door
from trunkline.actors.process.mailbox import MOST_PIPES, Mailbox
from trunkline.wire.envelope import BROKER, Kind, header
from trunkline.wire.framing import Unframer

LIMIT_S = 20.0
HEAD = header(Kind.CANCELLED, 0, 1)
GONE = b"direct-" + bytes(8)
"""A pipe of a guest who is not there any more."""


class Post:
    """A mailbox with a door, and the router's socket."""

    def __init__(self, folder: Path) -> None:
        address = f"ipc://{folder}/broker.sock"
        self.context = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.bind(address)
        self.received: list[tuple[bytes, bytes, list[bytes]]] = []
        self.mailbox = Mailbox(address, b"w1", lambda *message: self.received.append(message))
        self.path = folder / "w-door"
        self.mailbox.door = Door(self.path, lambda *_: None, lambda _: None)

    async def routed(self) -> list[bytes]:
        """The next message at the router."""
        await until_async(lambda: self.router.poll(0))
        return self.router.recv_multipart()

    def guest(self) -> tuple[bytes, socket.socket]:
        assert self.mailbox.door is not None
        before = set(self.mailbox.door.guests)
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.path))
        sock.settimeout(LIMIT_S)
        self.mailbox.door.admit_waiting()
        (name,) = set(self.mailbox.door.guests) - before
        return name, sock

    def close(self) -> None:
        self.mailbox.close()
        self.router.close(linger=0)
        self.context.term()


def run(folder: Path, body: Callable[[Post], Awaitable[None]]) -> None:
    async def whole() -> None:
        post = Post(folder)
        try:
            await body(post)
        finally:
            post.close()

    asyncio.run(whole())


def test_what_is_for_the_broker_goes_through_the_router_and_its_word_comes_back(
    tmp_path: Path,
) -> None:
    async def body(post: Post) -> None:
        post.mailbox.tell_broker(Kind.LOG, "info", "text")
        assert await post.routed() == [b"w1", BROKER, header(Kind.LOG, 0, "info", "text")]
        post.router.send_multipart((b"w1", BROKER, HEAD, b"body"))
        await until_async(lambda: post.received)
        assert post.received == [(BROKER, HEAD, [b"body"])]

    run(tmp_path, body)


def test_another_identity_takes_the_place_of_the_former(tmp_path: Path) -> None:
    async def body(post: Post) -> None:
        post.mailbox.replace(b"w2")
        post.mailbox.send(b"peer", HEAD)
        assert await post.routed() == [b"w2", b"peer", HEAD]

    run(tmp_path, body)


def test_a_holder_is_spoken_to_where_its_start_came_from(tmp_path: Path) -> None:
    async def body(post: Post) -> None:
        mailbox = post.mailbox
        name, sock = post.guest()
        with sock:
            assert mailbox.speaks_for(b"socket", b"holder")
            assert not mailbox.speaks_for(name, b"holder")
            assert mailbox.bind(b"holder", name)
            assert mailbox.speaks_for(name, b"holder")
            mailbox.send(b"holder", HEAD, b"by the pipe")
            assert list(Unframer().feed(sock.recv(1000))) == [(HEAD, b"by the pipe")]
            assert not mailbox.bind(b"holder", b"socket")  # it came before the pipe, which is open
        assert mailbox.bind(b"holder", b"socket")  # the pipe is closed
        mailbox.send(b"holder", HEAD, b"by the router")
        assert await post.routed() == [b"w1", b"holder", HEAD, b"by the router"]

    run(tmp_path, body)


def test_a_start_from_an_earlier_pipe_changes_nothing(tmp_path: Path) -> None:
    async def body(post: Post) -> None:
        (first, one), (second, other) = post.guest(), post.guest()
        with one, other:
            assert post.mailbox.bind(b"holder", second)
            assert not post.mailbox.bind(b"holder", first)
            assert post.mailbox.speaks_for(second, b"holder")

    run(tmp_path, body)


def test_a_pipe_stays_its_holders_under_another_name(tmp_path: Path) -> None:
    async def body(post: Post) -> None:
        (first, one), (second, other) = post.guest(), post.guest()
        with one, other:
            post.mailbox.bind(b"holder", first)
            post.mailbox.rebind(b"holder", b"renamed")
            assert post.mailbox.speaks_for(first, b"renamed")
            assert not post.mailbox.speaks_for(first, b"holder")
            post.mailbox.bind(b"later", second)  # under its next name already
            post.mailbox.rebind(b"renamed", b"later")
            assert post.mailbox.speaks_for(second, b"later")
            post.mailbox.rebind(b"later", None)
            assert not post.mailbox.speaks_for(second, b"later")

    run(tmp_path, body)


def test_pipes_of_guests_who_have_left_are_forgotten_when_they_are_many(tmp_path: Path) -> None:
    async def body(post: Post) -> None:
        name, sock = post.guest()
        with sock:
            post.mailbox.bind(b"holder", name)
            for number in range(MOST_PIPES):
                post.mailbox.bind(b"%d" % number, GONE)
            assert post.mailbox.speaks_for(name, b"holder")
            assert not post.mailbox.speaks_for(GONE, b"0")

    run(tmp_path, body)


def test_a_requests_time_is_the_shorter_of_what_it_has_and_what_is_left(tmp_path: Path) -> None:
    async def body(post: Post) -> None:
        now = asyncio.get_running_loop().time()  # the monotonic clock
        assert post.mailbox.left_ms(50, now + 1000) == 50
        assert post.mailbox.left_ms(5000, now - 1) < -900

    run(tmp_path, body)

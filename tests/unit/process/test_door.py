"""The worker's door: messages of proxies on unix sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.support.waiting import until_async
from trunkline.actors.process.door import Door
from trunkline.wire.framing import Inlet, Unframer, frame

LIMIT_S = 20.0


class House:
    """A door with notes of what came through it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "w-door"
        self.received: list[tuple[bytes, bytes, bytes]] = []
        self.left: list[bytes] = []
        self.door = Door(self.path, self._receive, self.left.append)

    def _receive(self, sender: bytes, head: bytes, body: list[bytes]) -> None:
        self.received.append((sender, head, body[0]))

    def visit(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.path))
        sock.settimeout(LIMIT_S)
        return sock


def run(folder: Path, body: Callable[[House], Awaitable[None]]) -> None:
    async def whole() -> None:
        house = House(folder)
        try:
            await body(house)
        finally:
            house.door.close()
        assert not house.path.exists()

    asyncio.run(whole())


def messages_in(data: bytes) -> list[tuple[bytes, bytes]]:
    return list(Unframer().feed(data))


def test_messages_come_in_and_answers_go_out(tmp_path: Path) -> None:
    async def body(house: House) -> None:
        with house.visit() as sock:
            sock.sendall(frame(b"head", b"body") + frame(b"head 2", b"body 2"))
            await until_async(lambda: len(house.received) == 2)
            (name,) = house.door.guests
            assert house.received == [(name, b"head", b"body"), (name, b"head 2", b"body 2")]
            assert house.door.guests[name].send(b"answer", b"its body")
            assert messages_in(sock.recv(1000)) == [(b"answer", b"its body")]
        await until_async(lambda: house.left == [name])
        assert not house.door.guests

    run(tmp_path, body)


def test_guests_are_numbered_in_the_order_of_their_coming(tmp_path: Path) -> None:
    async def body(house: House) -> None:
        with house.visit(), house.visit():
            house.door.admit_waiting()
            first, second = house.door.guests
            assert first < second

    run(tmp_path, body)


def test_what_is_no_message_ends_this_guest_alone(tmp_path: Path) -> None:
    async def body(house: House) -> None:
        with house.visit() as good, house.visit() as bad:
            bad.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert await asyncio.to_thread(bad.recv, 100) == b""
            good.sendall(frame(b"head", b""))
            await until_async(lambda: house.received)

    run(tmp_path, body)


def test_a_claimed_guest_is_read_by_another_thread(tmp_path: Path) -> None:
    async def body(house: House) -> None:
        with house.visit() as sock:
            house.door.admit_waiting()
            (guest,) = house.door.guests.values()
            guest.claim()
            wake_r, wake_w = os.pipe()
            try:
                sock.sendall(frame(b"for the thread"))
                heard = await asyncio.to_thread(guest.listen, wake_r, 20_000, Inlet())
                assert heard == [(b"for the thread", b"")]
                assert guest.listen(wake_r, 0, Inlet()) == []
                os.write(wake_w, b".")  # there is other work
                assert await asyncio.to_thread(guest.listen, wake_r, 20_000, Inlet()) == []
            finally:
                os.close(wake_r)
                os.close(wake_w)
            guest.rearm()
            sock.sendall(frame(b"for the loop"))
            await until_async(lambda: [head for _, head, _ in house.received] == [b"for the loop"])

    run(tmp_path, body)


def test_a_guest_that_takes_nothing_is_given_up_and_gets_the_rest_when_it_reads(
    tmp_path: Path,
) -> None:
    async def body(house: House) -> None:
        large = bytes(4_000_000)
        with house.visit() as sock:
            house.door.admit_waiting()
            (guest,) = house.door.guests.values()
            assert guest.send(b"large", large)
            sent = await asyncio.to_thread(guest.send_when_taken, b"next", b"", 0.05, lambda: False)
            assert not sent
            got = bytearray()
            while len(got) < len(frame(b"large", large)):
                got += await asyncio.to_thread(sock.recv, 1 << 20)
            assert messages_in(bytes(got)) == [(b"large", large)]
            sent = await asyncio.to_thread(
                guest.send_when_taken, b"next", b"", LIMIT_S, lambda: False
            )
            assert sent
            assert messages_in(sock.recv(100)) == [(b"next", b"")]
        await until_async(lambda: house.left)
        assert not guest.send(b"too late")

    run(tmp_path, body)


def test_a_door_takes_the_place_of_a_former_one_and_removes_its_own_alone(tmp_path: Path) -> None:
    async def body(house: House) -> None:
        former, house.door = house.door, Door(house.path, lambda *_: None, house.left.append)
        former.close()
        assert house.path.exists()  # it is the next door's

    run(tmp_path, body)

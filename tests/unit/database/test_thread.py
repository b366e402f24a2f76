"""The driver thread: work in its order, and the next request read from a client's socket."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.database.scripted import run, until
from trunkline.actors.database.thread import DriverThread, call_on_loop
from trunkline.actors.process.door import Door, Guest
from trunkline.wire.framing import frame


def started(
    deliver: Callable[[bytes, bytes, bytes], object] = lambda *message: None,
) -> DriverThread:
    thread = DriverThread(asyncio.get_running_loop(), deliver)
    thread.start()
    return thread


def test_work_is_done_on_one_thread_in_its_order() -> None:
    async def body() -> None:
        thread, done = started(), []
        for number in range(100):
            thread.put(lambda number=number: done.append((number, threading.current_thread().name)))
        thread.stop()
        assert thread.join(10)
        assert done == [(number, "trunkline-driver") for number in range(100)]
        assert not thread.can_listen

    run(body())


def test_a_call_returns_or_raises_what_the_work_does() -> None:
    async def body() -> None:
        thread = started()
        assert await thread.call(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await thread.call(lambda: 1 // 0)
        assert await thread.call(thread.is_idle)
        thread.stop()
        assert thread.join(10)

    run(body())


def test_a_call_that_is_cancelled_does_not_end_its_work() -> None:
    async def body() -> None:
        thread, may_end, done = started(), threading.Event(), threading.Event()
        for work in (lambda: may_end.wait(10), lambda: 1 // 0):
            calling = asyncio.ensure_future(thread.call(work))
            await asyncio.sleep(0)
            calling.cancel()
        may_end.set()
        thread.put(done.set)
        assert await asyncio.to_thread(done.wait, 10)
        thread.stop()
        assert thread.join(10)

    run(body())


def test_what_a_thread_says_after_the_end_of_the_loop_is_lost() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    call_on_loop(loop, print)


class Program:
    """A client of a door, and the server's side of it."""

    def __init__(self, folder: Path) -> None:
        self.received: list[bytes] = []
        self.left: list[bytes] = []
        self.door = Door(
            folder / "door", lambda name, head, body: self.received.append(head), self.left.append
        )
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(folder / "door"))
        self.door.admit_waiting()
        self.guest: Guest = next(iter(self.door.guests.values()))

    def close(self) -> None:
        self.sock.close()
        self.door.close()


def test_the_thread_runs_the_requests_of_a_client_until_one_is_for_the_loop(tmp_path: Path) -> None:
    async def body() -> None:
        program = Program(tmp_path)
        delivered = asyncio.Event()
        messages: list[tuple[bytes, bytes, bytes]] = []

        def deliver(*message: bytes) -> None:
            messages.append(message)  # type: ignore[arg-type]
            delivered.set()

        thread = started(deliver)
        program.guest.claim()
        run_heads: list[bytes] = []

        def run_message(client: Guest, head: bytes, body: bytes) -> bool:
            if body == b"for the loop":
                return False
            run_heads.append(head)
            thread.attend(client, run_message)
            program.sock.sendall(frame(b"next", b"for the loop" if len(run_heads) == 3 else b""))
            return True

        program.sock.sendall(
            frame(b"first")
        )  # Before the thread listens, which it does not do for long.
        thread.put(lambda: thread.attend(program.guest, run_message))
        await delivered.wait()
        assert run_heads == [b"first", b"next", b"next"]
        assert messages == [(program.guest.name, b"next", b"for the loop")]
        await until(lambda: not program.guest.claimed)
        program.sock.sendall(frame(b"the loop reads again"))
        await until(lambda: program.received)
        thread.stop()
        assert thread.join(10)
        program.close()

    run(body())


def test_other_work_calls_the_thread_away_from_a_client(tmp_path: Path) -> None:
    async def body() -> None:
        program, thread, done = Program(tmp_path), started(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for _ in range(20):
            done.clear()
            program.guest.claim()
            thread.put(lambda: thread.attend(program.guest, lambda *message: True))
            thread.put(lambda: call_on_loop(loop, done.set))
            await done.wait()
            await until(lambda: not program.guest.claimed)
        thread.stop()
        assert thread.join(10)
        program.close()

    run(body())


def test_two_requests_at_once_are_for_the_loop(tmp_path: Path) -> None:
    async def body() -> None:
        heads: list[bytes] = []
        program = Program(tmp_path)
        thread = started(lambda name, head, body: heads.append(head))
        program.guest.claim()
        program.sock.sendall(frame(b"one") + frame(b"two"))
        thread.put(lambda: thread.attend(program.guest, lambda *message: True))
        await until(lambda: not program.guest.claimed)
        assert heads == [b"one", b"two"]
        thread.stop()
        assert thread.join(10)
        program.close()

    run(body())


def test_a_statement_that_the_loop_was_told_of_ends_the_listening(tmp_path: Path) -> None:
    async def body() -> None:
        program, ran = Program(tmp_path), asyncio.Event()
        loop = asyncio.get_running_loop()
        thread = started()

        def run_message(client: Guest, head: bytes, body: bytes) -> bool:
            call_on_loop(loop, ran.set)
            return True

        program.guest.claim()
        program.sock.sendall(frame(b"one"))
        thread.put(lambda: thread.attend(program.guest, run_message))
        await ran.wait()
        await thread.call(lambda: None)
        assert program.guest.claimed  # Whoever was told gives the socket back.
        thread.stop()
        assert thread.join(10)
        program.close()

    run(body())

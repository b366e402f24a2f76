"""A worker in this process, with a ZeroMQ router in place of the broker and SQLite in place of a server."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from trunkline.actors.process import contact
from trunkline.actors.process.worker import Worker
from trunkline.address import parse_address
from trunkline.wire import messages, values
from trunkline.wire.envelope import BROKER, Kind, header, parse

CONNECTION = b"connect1"
LIMIT_S = 20.0


class Broker:
    """The broker's end: a ROUTER socket at the address of the spec."""

    def __init__(self, folder: Path) -> None:
        self.address = f"ipc://{folder}/broker.sock"
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind(self.address)
        self.worker = b""

    async def next(self, wanted: Kind) -> list[Any]:
        """The fields of the next message of this kind to the broker; others are passed over."""
        return (await self.next_to(BROKER, wanted))[1]

    async def next_to(self, peer: bytes, wanted: Kind) -> tuple[int, list[Any], list[bytes]]:
        """Request id, fields and body of the next message of this kind to a peer."""
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            try:
                self.worker, to, head, *body = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                await asyncio.sleep(0.005)
                continue
            kind, request_id, fields = parse(head)
            if to == peer and kind is wanted:
                return request_id, fields, body
        raise AssertionError(f"no {wanted.name} for {peer!r} within {LIMIT_S} s")

    def say(self, kind: Kind, *fields: object, sender: bytes = BROKER, request_id: int = 0) -> None:
        self._socket.send_multipart((self.worker, sender, header(kind, request_id, *fields)))

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()


@pytest.fixture
def router() -> Iterator[Broker]:
    folder = Path(tempfile.mkdtemp(prefix="tlw-"))  # the path of a socket has to be short
    made = Broker(folder)
    yield made
    made.close()
    shutil.rmtree(folder)


def spec(router: Broker, **changes: Any) -> dict[str, Any]:
    address = parse_address("sqlite3://:memory:")
    record = {
        "id": CONNECTION,
        "number": 1,
        "spec": {"address": address.to_wire(), "scheme": "sqlite3"},
        "restart": False,
        "linger_s": 0.0,
        "handle": None,
        "former": None,
    }
    return {
        "identity": b"w-test",
        "broker": router.address,
        "broker_pid": os.getpid(),
        "incarnation": 1,
        "succeeds": False,
        "until": time.monotonic() + LIMIT_S,
        "holders": [[b"holder", b"control"]],
        "users": [os.getpid()],
        "stats": {},
        "had": [],
        "bequest": {},
        "record": record,
    } | changes


@asynccontextmanager
async def running(router: Broker, **changes: Any) -> AsyncIterator[Worker]:
    """A worker that has opened; it is told to close at the end."""
    worker = Worker(spec(router, **changes))
    life = asyncio.create_task(worker.run())
    await router.next(Kind.OPENED)
    try:
        yield worker
        router.say(Kind.CLOSE)
    finally:
        try:
            await asyncio.wait_for(life, LIMIT_S)
        finally:
            for number in (signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().remove_signal_handler(number)


def run(body: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(body(), 3 * LIMIT_S))


def test_it_introduces_itself_opens_and_ends_when_it_is_told_to(router: Broker) -> None:
    async def body() -> None:
        worker = Worker(spec(router))
        life = asyncio.create_task(worker.run())
        ready = messages.Ready(*await router.next(Kind.READY))
        assert (ready.incarnation, ready.pid) == (1, os.getpid())
        assert ready.holders == [[b"holder", b"control"]]
        assert messages.Linked(*await router.next(Kind.OPENED)).news["state"] == "open"
        router.say(Kind.CLOSE)
        await asyncio.wait_for(life, LIMIT_S)
        assert (await router.next(Kind.STATE))[0]["state"] == "closed"
        assert list(Path(router.address.removeprefix("ipc://")).parent.glob("w-*")) == []

    run(body)


def test_what_cannot_be_opened_is_told_as_failed(router: Broker, tmp_path: Path) -> None:
    async def body() -> None:
        address = parse_address(f"sqlite3://file:{tmp_path}/none/x.db?mode=ro")
        record = {
            **spec(router)["record"],
            "spec": {"address": address.to_wire(), "scheme": "sqlite3"},
        }
        life = asyncio.create_task(Worker(spec(router, record=record)).run())
        error = messages.Failed(*await router.next(Kind.FAILED)).error
        assert error["name"] == "DialError"
        await asyncio.wait_for(life, LIMIT_S)

    run(body)


def test_a_question_ahead_of_its_holder_is_answered_when_the_holder_comes(router: Broker) -> None:
    async def body() -> None:
        async with running(router) as worker:
            begin = messages.Transaction(b"second", b"t" * 8, "begin", 5000, None)
            router.say(Kind.TRANSACTION, *begin, sender=b"s2", request_id=7)
            router.say(Kind.STATS, sender=b"s1", request_id=1)
            await router.next_to(b"s1", Kind.REPLY)  # so the worker has seen the transaction
            router.say(Kind.ATTACH, *messages.HolderCame(b"second", b"c2", b"", 0, 0, []))
            assert (await router.next_to(b"s2", Kind.REPLY))[0] == 7
            assert set(worker.holders) == {b"holder", b"second"}

    run(body)


def test_a_holder_is_served_under_the_name_that_it_had_before(router: Broker) -> None:
    async def body() -> None:
        async with running(router):
            router.say(Kind.ATTACH, *messages.HolderCame(b"renamed", b"c2", b"holder", 0, 0, []))
            begin = messages.Transaction(b"holder", b"t" * 8, "begin", 5000, None)
            router.say(Kind.TRANSACTION, *begin, sender=b"s", request_id=3)
            assert (await router.next_to(b"s", Kind.REPLY))[0] == 3

    run(body)


def test_a_start_for_a_later_worker_is_answered_with_gone(router: Broker) -> None:
    async def body() -> None:
        async with running(router, incarnation=3):
            router.say(Kind.START, *messages.Start(b"holder", False, 0, False, 2), sender=b"s")
            gone = messages.Gone(*(await router.next_to(b"s", Kind.GONE))[1])
            assert gone == messages.Gone(True, "its worker was replaced", 3)

    run(body)


def test_a_message_that_is_none_is_told_once_and_disturbs_nobody(router: Broker) -> None:
    async def body() -> None:
        async with running(router):
            for _ in range(3):
                router.say(Kind.TRANSACTION, "wrong", sender=b"s", request_id=1)
            line = messages.Log(*await router.next(Kind.LOG))
            assert "a malformed Transaction arrived" in line.text
            router.say(Kind.STATS, sender=b"s", request_id=2)
            request_id, _, (packed,) = await router.next_to(b"s", Kind.REPLY)
            assert request_id == 2
            assert values.unpack(packed)["holders"] == 1

    run(body)


def test_a_lost_broker_is_waited_for_under_another_identity(router: Broker) -> None:
    with subprocess.Popen(["sleep", "60"]) as former:

        async def body() -> None:
            async with running(router, broker_pid=former.pid):
                former.kill()
                ready = messages.Ready(*await router.next(Kind.READY))
                assert router.worker.startswith(b"w" + CONNECTION)
                assert ready.holders == [[b"holder", b"control"]]
                router.say(Kind.BEAT, *messages.WorkerBeat(os.getpid(), [os.getpid()]))
                await router.next(Kind.STATE)  # it beats again

        try:
            run(body)
        finally:
            former.kill()


def test_a_broker_that_lives_and_is_silent_is_not_lost(
    router: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact, "MISSED_BEATS", -1)  # each beat without an answer is one too many

    async def body() -> None:
        async with running(router):
            for _ in range(2):
                await router.next(Kind.STATE)
            assert router.worker == b"w-test"

    run(body)


def test_a_signal_ends_it_in_good_order(router: Broker) -> None:
    async def body() -> None:
        life = asyncio.create_task(Worker(spec(router)).run())
        await router.next(Kind.OPENED)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(life, LIMIT_S)

    run(body)

"""The router with a spawner that is no zygote: orders, refusals, ends and replacements of workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.support.spawners import Order, ScriptedSpawner
from trunkline.broker.router import Broker
from trunkline.broker.spawner import Ended, Refused, Spawner, Started
from trunkline.broker.zygote import Zygote
from trunkline.wire import values
from trunkline.wire.envelope import BROKER, Kind, header, parse

pytestmark = pytest.mark.usefixtures("restored_signals")
WAIT_MS = 20_000
SPAWNERS: list[type[Spawner]] = [Zygote, ScriptedSpawner]
"""Checked by mypy: both have all that the router asks for."""


class Peer:
    """A socket of a program or a worker, as the broker sees it."""

    def __init__(self, context: zmq.Context[Any], address: str, identity: bytes) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, identity)
        self.socket.setsockopt(zmq.LINGER, 1000)
        self.socket.connect(address)

    def say(self, kind: Kind, *fields: Any, body: tuple[bytes, ...] = ()) -> None:
        self.socket.send_multipart([BROKER, header(kind, 1, *fields), *body])

    def hear(self, wanted: Kind) -> list[Any]:
        """The fields of the next message of this kind; others before it are dropped."""
        while self.socket.poll(WAIT_MS):
            kind, _, fields = parse(self.socket.recv_multipart()[1])
            if kind is wanted:
                return fields
        raise AssertionError(f"no {wanted.name}")


class Stage:
    """A broker in this thread, with a program and workers that a second thread plays."""

    def __init__(self, folder: Path) -> None:
        self.address = f"ipc://{folder}/broker.sock"
        self.spawner = ScriptedSpawner()
        self._context: zmq.Context[Any] = zmq.Context()
        self._failures: list[BaseException] = []

    def play(self, script: Callable[[], None]) -> None:
        """Run the broker until the script has ended and its program has left."""
        broker = Broker(self.address, self.spawner)
        thread = threading.Thread(target=lambda: self._run(script))
        broker.run(thread.start)
        signal.set_wakeup_fd(-1)  # the pipe is closed, and the process of `pid` has yet to end
        thread.join()
        self._context.term()
        if self._failures:
            raise self._failures[0]

    def _run(self, script: Callable[[], None]) -> None:
        self.control = self.peer(b"control")
        self.holder = self.peer(b"holder")
        self._peers = [self.control, self.holder]
        try:
            self.control.say(Kind.HELLO, os.getpid())
            self.control.hear(Kind.WELCOME)
            script()
        except BaseException as error:
            self._failures.append(error)
        finally:
            self.control.say(Kind.BYE)
            for peer in self._peers:
                peer.socket.close()

    def peer(self, identity: bytes) -> Peer:
        return Peer(self._context, self.address, identity)

    def dial(self, *, restart: bool) -> None:
        spec = values.pack({"display": "tcp://x", "scheme": "tcp"})
        self.holder.say(Kind.OPEN, b"control", 60_000, restart, 0.0, body=(spec,))

    def register_worker(self, order: Order, pid: int) -> Peer:
        """Let a worker that was ordered come to the broker, and open its link."""
        worker = self.peer(order.spec["identity"])
        self._peers.append(worker)
        news = {"state": "open", "peer": "tcp://x", "incarnation": order.spec["incarnation"]}
        worker.say(
            Kind.READY, order.spec["record"], order.spec["incarnation"], pid, [], dict(news), []
        )
        worker.say(Kind.OPENED, news)
        return worker


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def pid() -> Iterator[int]:
    """A process that lives until it is killed, in place of a worker."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


def test_a_dial_fails_with_the_reason_of_a_spawner_that_refuses(stage: Stage) -> None:
    def script() -> None:
        stage.dial(restart=True)
        order = stage.spawner.next_order()
        stage.spawner.tell(Refused(order.key, "no memory"))
        assert "could not be started (no memory)" in stage.holder.hear(Kind.FAILED)[0]["text"]
        assert not stage.spawner.has_orders()

    stage.play(script)
    assert stage.spawner.closed


def test_a_worker_that_has_crashed_is_ordered_again_with_the_next_incarnation(
    stage: Stage, pid: int
) -> None:
    def script() -> None:
        stage.dial(restart=True)
        first = stage.spawner.next_order()
        stage.spawner.tell(Started(first.key, pid))
        stage.register_worker(first, pid)
        assert stage.holder.hear(Kind.OPENED)[1]["serving"] == 1
        stage.spawner.tell(Ended(pid, -9))
        goes_on, reason, serving = stage.holder.hear(Kind.GONE)
        assert (goes_on, serving) == (True, 2)
        assert reason == "its worker was killed by SIGKILL"
        second = stage.spawner.next_order()
        assert second.key == first.key
        assert second.spec["incarnation"] == 2
        assert second.spec["identity"] != first.spec["identity"]

    stage.play(script)


def test_a_worker_of_a_connection_without_restart_is_not_replaced(stage: Stage, pid: int) -> None:
    def script() -> None:
        stage.dial(restart=False)
        order = stage.spawner.next_order()
        stage.spawner.tell(Started(order.key, pid))
        stage.register_worker(order, pid)
        stage.holder.hear(Kind.OPENED)
        stage.spawner.tell(Ended(pid, -9))
        assert stage.holder.hear(Kind.GONE)[0] is False
        assert not stage.spawner.has_orders()

    stage.play(script)


def test_an_order_is_given_again_to_the_spawner_that_takes_over(stage: Stage) -> None:
    def script() -> None:
        stage.dial(restart=True)
        first = stage.spawner.next_order()
        stage.spawner.tell(None)
        second = stage.spawner.next_order()
        assert (second.key, second.spec["incarnation"]) == (first.key, 2)
        assert stage.spawner.restarts == 1

    stage.play(script)

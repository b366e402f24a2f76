"""A whole broker without a ZeroMQ socket, for tests of its parts: messages go in by a call, the clock stands
still unless the test lets time pass, and all that the broker says is kept."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.spawners import Order, ScriptedSpawner
from trunkline.broker.core import Core
from trunkline.broker.directory import Connection, Directory
from trunkline.broker.incoming import Incoming
from trunkline.broker.outbox import Outbox
from trunkline.broker.schedule import Schedule
from trunkline.broker.spawner import Ended, SpawnerEvent, Started
from trunkline.broker.watching import Watcher
from trunkline.wire import values
from trunkline.wire.envelope import Kind, header, parse

__all__ = ["CONTROL", "HOLDER", "StagedBroker", "Word"]

CONTROL = b"control"
HOLDER = b"holder"
SPEC = {"display": "tcp://x", "scheme": "tcp"}


class Word(NamedTuple):
    """A message that the broker has sent."""

    to: bytes
    sender: bytes
    kind: Kind
    request_id: int
    fields: list[Any]
    body: list[bytes]

    @property
    def value(self) -> Any:
        """The value that a REPLY carries."""
        return values.unpack(self.body[0])


class StagedBroker:
    """`folder`: the broker's; `persistent` and `starter`: as for `Broker`."""

    def __init__(
        self, folder: Path, *, persistent: bool = False, starter: int | None = None
    ) -> None:
        self.address = f"ipc://{folder}/broker.sock"
        self.now = 1000.0
        self.gone: set[bytes] = set()
        """Peers without a socket."""
        self.numbers: list[int] = []
        """The numbers that the broker has written down."""
        self.hears_last_words: list[Incoming] = []
        """Messages that are in the socket's queue when the broker looks there for a worker's last words."""
        self.spawner = ScriptedSpawner()
        self.directory = Directory()
        self.schedule = Schedule(lambda: self.now)
        self.schedule.next_look = self.now
        self.outbox = Outbox(self._send)
        self._selector = selectors.DefaultSelector()
        self.watcher = Watcher(self._selector)
        self._words: list[Word] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self.core = Core(
            self.address, self.directory, self.outbox, self.spawner, self.watcher, self.schedule,
            keep_number=self.numbers.append, hear_waiting_messages=self._hear_last_words,
            persistent=persistent, starter=starter,
        )  # fmt: skip
        self.core.spawning.listen()

    def _send(self, frames: list[bytes]) -> bool:
        to, sender, head, *body = frames
        if to in self.gone:
            return False
        self._words.append(Word(to, sender, *parse(head), body))
        return True

    def _hear_last_words(self) -> None:
        while self.hears_last_words:
            self.core.handle(self.hears_last_words.pop(0))

    # programs

    def say(self, sender: bytes, kind: Kind, *fields: Any, body: tuple[bytes, ...] = ()) -> None:
        """A peer says something, as request 1."""
        self.core.handle(self.message(sender, kind, *fields, body=body))

    def message(
        self, sender: bytes, kind: Kind, *fields: Any, body: tuple[bytes, ...] = ()
    ) -> Incoming:
        """What a peer says, as the broker gets it."""
        _, request_id, received = parse(header(kind, 1, *fields))
        return Incoming(sender, kind, request_id, received, list(body))

    def hello(self, control: bytes = CONTROL, pid: int | None = None) -> None:
        """A program introduces itself: this process, or the one of `pid`."""
        self.say(control, Kind.HELLO, pid or os.getpid())

    def dial(
        self, holder: bytes = HOLDER, control: bytes = CONTROL, *, timeout_ms: int = 60_000,
        restart: bool = True, linger_s: float = 0.0, **spec: Any,
    ) -> None:  # fmt: skip
        """A program dials. `spec`: further parts of the address."""
        body = values.pack({**SPEC, **spec})
        self.say(holder, Kind.OPEN, control, timeout_ms, restart, linger_s, body=(body,))

    def attach(
        self, holder: bytes, connection: bytes = b"", *, handle: int = 0, former: bytes = b"", epoch: int = 0,
        consumed: int = 0, serving: int = 0,
    ) -> None:  # fmt: skip
        """An object attaches, by a handle or by the id of a connection."""
        self.say(
            holder, Kind.ATTACH, CONTROL, handle, connection, former, epoch, consumed, [], serving
        )

    def heard_by(self, peer: bytes) -> list[Word]:
        """All that the broker has said to this peer since the last call."""
        found = [word for word in self._words if word.to == peer]
        self._words = [word for word in self._words if word.to != peer]
        return found

    def kinds_heard_by(self, peer: bytes) -> list[Kind]:
        """The kinds of all that the broker has said to this peer since the last call."""
        return [word.kind for word in self.heard_by(peer)]

    # workers

    def worker_process(self) -> int:
        """The id of a process that lives until `close`, or until it is killed."""
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self._processes.append(process)
        return process.pid

    def has_ended(self, pid: int) -> bool:
        """Wait until a process of `worker_process` has ended. Returns whether a signal has killed it."""
        process = next(each for each in self._processes if each.pid == pid)
        return process.wait(20) < 0

    def start_worker(self, **news: Any) -> Order:
        """Let the worker that was ordered run, register and open its link."""
        order = self.spawner.next_order()
        self.register(order, self.worker_process(), **news)
        self.say(order.spec["identity"], Kind.OPENED, {"state": "open", "peer": "tcp://x", **news})
        return order

    def register(self, order: Order, pid: int, **news: Any) -> None:
        """Let a worker that was ordered register."""
        incarnation = order.spec["incarnation"]
        self.tell(Started(order.key, pid))
        stats = {"state": "dialing", "peer": "tcp://x", "incarnation": incarnation, **news}
        known = [list(pair) for pair in order.spec["holders"]]
        record = order.spec["record"]
        self.say(order.spec["identity"], Kind.READY, record, incarnation, pid, known, stats, [])

    def adopt(
        self, connection_id: bytes = b"12345678", pid: int | None = None, *, incarnation: int = 1,
        holders: tuple[bytes, ...] = (HOLDER,), users: tuple[int, ...] = (), **record: Any,
    ) -> bytes:  # fmt: skip
        """Let a worker of another broker come, with its record. Returns the worker's routing id."""
        worker = b"w" + connection_id + b"-1"
        made = Connection(connection_id, 7, {**SPEC}, restart=True, linger_s=0.0, **record).record()
        known = [[holder, CONTROL] for holder in holders]
        stats = {"state": "open", "peer": "tcp://x", "incarnation": incarnation}
        process = pid or self.worker_process()
        self.say(worker, Kind.READY, made, incarnation, process, known, stats, list(users))
        return worker

    def open_connection(self, **spec: Any) -> Connection:
        """A program that is known, a Dial and its worker, and all words about them heard."""
        self.hello()
        self.dial(**spec)
        order = self.start_worker()
        connection = self.directory.connections[bytes.fromhex(order.key)]
        self.forget_words()
        return connection

    def forget_words(self) -> None:
        """Forget all that was said so far."""
        self._words.clear()

    def tell(self, event: SpawnerEvent | None) -> None:
        """The spawner tells an event; None: it is gone."""
        self.spawner.tell(event)
        self.watcher.call_ready(0)

    def lose_worker(self, connection: Connection, status: int = -9) -> None:
        """The spawner tells the end of the connection's worker."""
        self.tell(Ended(connection.pid, status))

    # time

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with a look at the time at each tick."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, max(self.now + 0.01, self.schedule.next_look))
            self.core.deadlines.look_at_time(self.now)

    def close(self) -> None:
        """End the processes and close the descriptors."""
        for process in self._processes:
            process.kill()
            process.communicate()
        for connection in self.directory:
            if connection.watch is not None:
                connection.watch.close()
        for client in self.directory.clients.values():
            client.watch.close()
        self.spawner.close()
        self._selector.close()

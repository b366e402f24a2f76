"""The broker's process: a plain poll loop around one ROUTER socket.

The router forwards messages between proxies and workers without decoding them. Messages to the
broker itself go to `trunkline.broker.core`, which knows the module for each kind. The router knows
neither drivers nor `Connection`.

The whole broker runs in one thread. A signal handler only notes the signal, and the loop does the
rest.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable

import zmq

from trunkline.broker import journal
from trunkline.broker.core import Core
from trunkline.broker.directory import Connection, Directory
from trunkline.broker.incoming import Incoming
from trunkline.broker.outbox import Outbox
from trunkline.broker.place import Place
from trunkline.broker.process import ending_signals
from trunkline.broker.schedule import Schedule
from trunkline.broker.sockets import RouterSocket
from trunkline.broker.spawner import Spawner
from trunkline.broker.succession import reap
from trunkline.broker.unanswered import answer_in_place_of_worker
from trunkline.broker.watching import Watcher
from trunkline.errors import BrokerGone, TrunklineError, to_wire
from trunkline.wire import endpoint
from trunkline.wire.envelope import CONNECTION_ID_BYTES, REQUESTS, Kind, kind_of, parse

__all__ = ["Broker"]

JOURNAL_EVERY_S = 5.0
COMPLAIN_EVERY_S = 1.0
REFRESH_EVERY_S = 3600.0


class Broker:
    """The broker at `address`. `spawner` starts the workers.

    `persistent`: the broker stays when the last client has gone. `starter`: the process id of the
    first client to come. A broker whose starter dies before that has no reason to stay.
    """

    def __init__(
        self,
        address: str,
        spawner: Spawner,
        *,
        persistent: bool = False,
        starter: int | None = None,
    ) -> None:
        self.address = address
        self.directory = Directory()
        self.place = Place(address)
        self.directory.number_from(self.place.last_number())
        self._spawner = spawner
        self._socket = RouterSocket(address)
        self._outbox = Outbox(self._socket.send)
        self._selector = selectors.DefaultSelector()
        self._watcher = Watcher(self._selector)
        self._schedule = Schedule()
        self._core = Core(
            address, self.directory, self._outbox, spawner, self._watcher, self._schedule,
            keep_number=self.place.keep_number, hear_waiting_messages=self._drain_socket,
            persistent=persistent, starter=starter,
        )  # fmt: skip
        self._told_to_stop = False
        self._journal_at = 0.0
        self._complained_at = 0.0
        self._refresh_at = 0.0

    @property
    def ended_early(self) -> bool:
        """Whether the broker was stopped soon after its start, with programs present or still to
        come.

        These programs start another broker, so the folder stays.
        """
        return self._core.ending.ended_early

    # the loop

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until the last client is gone; a persistent broker serves until SIGTERM.

        `ready` is called once the signal handlers are set, so a starter may send a signal at once.
        """
        wake_r, wake_w = os.pipe()
        os.set_blocking(wake_r, False)
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        # A handler may interrupt the loop between two frames of a message, so the handler sends
        # nothing.
        for number in ending_signals():
            signal.signal(number, self._note_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake the loop
        self._watcher.call_when_readable(self._socket.fileno(), None)
        self._core.spawning.listen()
        self._watcher.call_when_readable(wake_r, lambda: self._heed_signals(wake_r))
        try:
            ready()
            while not self._core.ending.is_stopping or self.directory.connections:
                # The loop drains the socket before each wait. The file descriptor of a ZeroMQ
                # socket is edge-triggered: it becomes readable once for new messages, and any send
                # may consume that edge.
                self._drain_socket()
                self._watcher.call_ready(max(0.0, self._schedule.next_look - time.monotonic()))
                now = time.monotonic()
                if now >= self._schedule.next_look:
                    self._core.deadlines.look_at_time(now)
                    self._look_after_files(now)
        finally:
            self._release_all()
            os.close(wake_r)
            os.close(wake_w)

    def _note_signal(self, number: int, frame: object) -> None:
        """Note a signal. Runs between any two steps of the loop; the wake-up pipe wakes the
        loop."""
        self._told_to_stop = True

    def _heed_signals(self, wake: int) -> None:
        """Act on signals: an order to stop, or the end of a child.

        The child is the zygote. Where the broker is process 1, the child may be any orphan.
        """
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 4096)
        if self._told_to_stop:
            self._core.ending.stop()
        for pid in reap():
            self._spawner.has_ended(pid)

    def _release_all(self) -> None:
        """Kill the remaining workers, and close the spawner and all sockets."""
        for connection in self.directory:
            if connection.watch is not None:
                connection.watch.kill()
        self._spawner.close(stays=self.ended_early)
        self._selector.close()
        self._socket.close()

    # messages

    def _drain_socket(self) -> None:
        """Forward or handle all messages in the socket's queue."""
        while (frames := self._socket.receive()) is not None:
            if len(frames) < 3:
                continue
            try:
                if frames[1]:
                    self._forward(frames)
                else:
                    kind, request_id, fields = parse(frames[2])
                    self._core.handle(Incoming(frames[0], kind, request_id, fields, frames[3:]))
            except Exception as error:
                # A malformed message must not affect other peers. Its text stays out of the log.
                self._complain(frames[0], error)

    def _forward(self, frames: list[bytes]) -> None:
        """Forward a message with the frames [from][to][header][body...].

        The receiver gets the frames [receiver's socket][from][header][body...].
        """
        sender, to = frames[0], frames[1]
        connection = self.directory.by_worker.get(sender)
        if connection is not None:  # from a worker, so `to` is a socket of a client
            if kind_of(frames[2]) != Kind.PART:
                connection.inflight.pop(to, None)
            frames[0], frames[1] = to, connection.id
            self._socket.send(frames)
        elif len(to) == CONNECTION_ID_BYTES:
            self._forward_to_worker(self.directory.connections.get(to), frames)
        # else from a worker unknown to this broker so far: the worker will register

    def _forward_to_worker(self, connection: Connection | None, frames: list[bytes]) -> None:
        """Forward a program's message; where no worker can take it, answer the program at once."""
        sender, to, head = frames[:3]
        if connection is None or connection.worker is None:
            why = self.directory.why_ended(to)
            answer_in_place_of_worker(self._outbox, connection, sender, head, why)
            return
        frames[0], frames[1] = connection.worker, sender
        # the worker is starting, or just gone, and will not answer
        if not self._socket.send(frames):
            answer_in_place_of_worker(self._outbox, connection, sender, head)
        elif kind_of(head) in REQUESTS:
            connection.inflight[sender] = head

    def _complain(self, sender: bytes, error: Exception) -> None:
        """Note a message that could not be handled.

        A peer of another version gets the error as an answer. Errors of any other kind go to the
        log, one a second at most.
        """
        if isinstance(error, TrunklineError):
            self._outbox.say(sender, Kind.ERROR, 0, to_wire(error))
            return
        now = time.monotonic()
        if now >= self._complained_at:
            self._complained_at = now + COMPLAIN_EVERY_S
            name = type(error).__name__
            print(f"trunkline broker: a malformed message was ignored: {name}", file=sys.stderr)

    # files

    def _look_after_files(self, now: float) -> None:
        """Keep the log short, the folder in place, and its files fresh."""
        if now >= self._journal_at:
            self._journal_at = now + JOURNAL_EVERY_S
            journal.trim(sys.stderr.fileno())
        if self.place.is_gone(now):
            self._take_place_again(now)
        if now >= self._refresh_at:
            self._refresh_at = now + REFRESH_EVERY_S
            endpoint.refresh(endpoint.folder_of(self.address))

    def _take_place_again(self, now: float) -> None:
        """Make a removed folder anew.

        Present connections go on as they are. New requests need a socket in the folder.
        """
        try:
            if not self.place.take_again():
                print(f"trunkline broker: another broker has taken {self.address}", file=sys.stderr)
                return
            self._socket.bind_again()
        except (BrokerGone, OSError, zmq.ZMQError) as error:
            if self.place.may_complain(now):
                print(
                    f"trunkline broker: its folder is gone and cannot be made: {error}",
                    file=sys.stderr,
                )
            return
        print("trunkline broker: its folder was removed and has been made anew", file=sys.stderr)

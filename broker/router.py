"""The broker's process: a plain poll loop around one ROUTER socket.

The router forwards what is between proxies and workers without decoding it. Messages to the broker itself go
to `trunkline.broker.core`, which knows the module for each. The router knows neither drivers nor
`Connection`.

All of the broker runs in one thread. A signal handler only notes the signal, and the loop does the rest.
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
    """See the module. `persistent`: do not end when the last client has gone. `starter`: the process that is
    to be the first client; where it dies before that, no other will come."""

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
        """The broker was stopped while programs had yet to come, or were there: these start another one."""
        return self._core.ending.ended_early

    # the loop

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until the last client is gone (or, when persistent, until SIGTERM). `ready` is called when
        signals are heeded, so that whoever is told may send one at once."""
        wake_r, wake_w = os.pipe()
        os.set_blocking(wake_r, False)
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        # A handler may interrupt the loop between two frames of a message, so it sends nothing itself.
        for number in ending_signals():
            signal.signal(number, self._note_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake the loop
        self._watcher.call_when_readable(self._socket.fileno(), None)
        self._core.spawning.listen()
        self._watcher.call_when_readable(wake_r, lambda: self._heed_signals(wake_r))
        try:
            ready()
            while not self._core.ending.is_stopping or self.directory.connections:
                # The socket is drained last: its descriptor tells of new messages only once.
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
        self._told_to_stop = True

    def _heed_signals(self, wake: int) -> None:
        """A signal came: an order to stop, or the end of a child (the zygote, or, where the broker is process
        1, any process that was left by its parent)."""
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 4096)
        if self._told_to_stop:
            self._core.ending.stop()
        for pid in reap():
            self._spawner.has_ended(pid)

    def _release_all(self) -> None:
        for connection in self.directory:
            if connection.watch is not None:
                connection.watch.kill()
        self._spawner.close(stays=self.ended_early)
        self._selector.close()
        self._socket.close()

    # messages

    def _drain_socket(self) -> None:
        """Forward or handle all messages that have come."""
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
                # Whatever a peer sends, other peers must not feel it, and its words stay out of the log.
                self._complain(frames[0], error)

    def _forward(self, frames: list[bytes]) -> None:
        """[from][to][header][body...] -> [to's socket][from][header][body...]."""
        sender, to = frames[0], frames[1]
        connection = self.directory.by_worker.get(sender)
        if connection is not None:  # from a worker, so `to` is a socket of a client
            if kind_of(frames[2]) != Kind.PART:
                connection.inflight.pop(to, None)
            frames[0], frames[1] = to, connection.id
            self._socket.send(frames)
        elif len(to) == CONNECTION_ID_BYTES:
            self._forward_to_worker(self.directory.connections.get(to), frames)
        # else from a worker that the broker does not know (yet): it will register

    def _forward_to_worker(self, connection: Connection | None, frames: list[bytes]) -> None:
        sender, to, head = frames[:3]
        if connection is None or connection.worker is None:
            why = self.directory.why_ended(to)
            answer_in_place_of_worker(self._outbox, connection, sender, head, why)
            return
        frames[0], frames[1] = connection.worker, sender
        if not self._socket.send(frames):  # it is starting, or just gone, and will not answer
            answer_in_place_of_worker(self._outbox, connection, sender, head)
        elif kind_of(head) in REQUESTS:
            connection.inflight[sender] = head

    def _complain(self, sender: bytes, error: Exception) -> None:
        """Note a message that could not be handled. A peer of another version is told so; of other peers one
        is named in the log each second at most."""
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
        """Keep the log short, the folder there, and its files fresh."""
        if now >= self._journal_at:
            self._journal_at = now + JOURNAL_EVERY_S
            journal.trim(sys.stderr.fileno())
        if self.place.is_gone(now):
            self._take_place_again(now)
        if now >= self._refresh_at:
            self._refresh_at = now + REFRESH_EVERY_S
            endpoint.refresh(endpoint.folder_of(self.address))

    def _take_place_again(self, now: float) -> None:
        """The folder was removed. Connections of now go on as they are; new requests need a socket there."""
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

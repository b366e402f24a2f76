"""This process's side of the broker: one context, one control socket with its thread, and a
few request sockets.

The thread is what lets a busy or sleeping strategy keep its promises: it beats, gives back messages when
another reader wants them (RECALL), writes the worker's words into the log, detaches objects that
were closed or collected, and finds or starts another broker when this one is lost. It never touches a
socket that a user's thread is using.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import zmq

from trunkline.channel import SLICE_S, Channel, Received
from trunkline.deadline import Deadline
from trunkline.errors import BrokerGone, OperationTimeout, from_wire
from trunkline.launch import broker_address, ensure_broker
from trunkline.wire.envelope import BROKER, Kind

if TYPE_CHECKING:
    from trunkline.connection import Connection

__all__ = ["Client", "current", "get", "shutdown"]

log = logging.getLogger("trunkline")

BEAT_S = 1.0
MISSES = 3
POOL = 32
ANSWER_S = 15.0
"""The broker answers its own requests at once; more than this is a broker that hangs."""


class Client:
    """See the module. Made by `get()`, once per process."""

    def __init__(self) -> None:
        self.address = broker_address()
        self.generation = 0
        self.connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, 65535)
        self._pool: deque[Channel] = deque()
        self._detached: deque[tuple[bytes, bytes, int | None, Channel | None]] = deque()
        self._request_id = 0
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._stopped = False
        self._heard = 0.0
        self._broker_fd = -1
        self._ready = threading.Event()
        self.control: Channel | None = None
        try:
            self._join_broker(Deadline(ANSWER_S))
        except BaseException:
            self._release()
            raise
        self._thread = threading.Thread(target=self._run, name="trunkline-io", daemon=True)
        self._thread.start()

    # requests, from any thread

    def request(
        self, to: bytes, kind: Kind, *fields: Any, body: Sequence[bytes] = (), deadline: Deadline
    ) -> list[bytes]:
        """Send a request and return the body of its answer. Raises what the other side answered,
        OperationTimeout at the deadline, BrokerGone when the broker is lost meanwhile."""
        channel = self._borrow()
        self._request_id = request_id = (self._request_id + 1) & 0x7FFFFFFF
        try:
            channel.send(to, kind, request_id, fields, *body)
            answer = self._await(channel, request_id, deadline)
        except BaseException:
            channel.close()  # whatever still comes is for nobody
            raise
        self._pool.append(channel)
        if answer[1] is Kind.ERROR:
            raise from_wire(answer[3][0])
        return answer[4]

    def _await(self, channel: Channel, request_id: int, deadline: Deadline) -> Received:
        while True:
            received = channel.receive(max(0.001, min(SLICE_S, deadline.left())))
            if received is not None:
                if received[2] == request_id:
                    return received
            elif deadline.expired():
                raise OperationTimeout("no answer in the time allowed")
            elif channel.generation != self.generation or self._stopped:
                raise BrokerGone("the broker was lost; whether the request was carried out is unknown")

    def _borrow(self) -> Channel:
        while self._pool:
            with contextlib.suppress(IndexError):
                channel = self._pool.pop()
                if channel.generation == self.generation:
                    return channel
                channel.close()
        return self.channel()

    def channel(self) -> Channel:
        """A new socket to the present broker."""
        if self._stopped:
            raise BrokerGone("trunkline was shut down in this process")
        return Channel(self.context, self.address, self.generation)

    def ask_broker(self, kind: Kind, *fields: Any) -> list[bytes]:
        return self.request(BROKER, kind, *fields, deadline=Deadline(ANSWER_S))

    def detach(self, key: bytes, holder: bytes, consumed: int | None, channel: Channel | None) -> None:
        """Take an object off its connection. Safe in finalizers: only queues the order."""
        self._detached.append((key, holder, consumed, channel))
        self._wake()

    @property
    def control_id(self) -> bytes:
        return self.control.identity if self.control is not None else b""

    # the thread

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_w, b"x")

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._turn()
            except Exception:
                if self._stopped:
                    break
                log.exception("trunkline: an error in the control thread")
                time.sleep(0.1)
        self._send_detached()

    def _turn(self) -> None:
        control = self.control
        assert control is not None
        poller = zmq.Poller()
        poller.register(control.socket, zmq.POLLIN)
        poller.register(self._wake_r, zmq.POLLIN)
        if self._broker_fd >= 0:
            poller.register(self._broker_fd, zmq.POLLIN)
        beat_at = time.monotonic() + BEAT_S
        while not self._stopped:
            events = dict(poller.poll(max(0, int((beat_at - time.monotonic()) * 1000))))
            if self._wake_r in events:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_r, 4096)
            self._send_detached()
            while (received := control.receive(0)) is not None:
                self._heard = time.monotonic()
                self._handle(control, received)
            lost = self._broker_fd in events or time.monotonic() - self._heard > BEAT_S * (MISSES + 1)
            if lost and not self._stopped:
                self._broker_lost()
                return
            if time.monotonic() >= beat_at:
                control.send(BROKER, Kind.BEAT, 0, ())
                beat_at = time.monotonic() + BEAT_S
                for connection in list(self.connections):
                    if connection._stale():
                        connection._rejoin()
                    connection._idle_ack(control)

    def _send_detached(self) -> None:
        control = self.control
        while self._detached and control is not None:
            key, holder, consumed, channel = self._detached.popleft()
            with contextlib.suppress(zmq.ZMQError):
                control.send(BROKER, Kind.DETACH, 0, (key, holder, consumed))
            if channel is not None:
                channel.close()

    def _handle(self, control: Channel, received: Received) -> None:
        sender, kind, _, fields, _ = received
        if kind is Kind.RECALL:
            holder, epoch = fields
            for connection in list(self.connections):
                if connection._holder_id == holder:
                    consumed, waiting = connection._recall(epoch)
                    control.send(sender, Kind.RECALLED, 0, (holder, epoch, consumed, waiting))
        elif kind is Kind.LOG:
            level = getattr(logging, str(fields[0]).upper(), logging.WARNING)
            log.log(level, "%s", fields[1])
        elif kind is Kind.REREGISTER:
            control.send(BROKER, Kind.HELLO, 0, (os.getpid(),))

    # the broker

    def _join_broker(self, deadline: Deadline) -> None:
        """Find or start the broker and introduce this process to it."""
        ensure_broker(self.address)
        old, self.control = self.control, None
        if old is not None:
            old.close()
        self.generation += 1
        control = self.control = self.channel()
        control.send(BROKER, Kind.HELLO, 0, (os.getpid(),))
        while (received := control.receive(min(SLICE_S, deadline.left()))) is None or received[1] is not Kind.WELCOME:
            if deadline.expired() or self._stopped:
                raise BrokerGone(f"the broker at {self.address} does not answer; `trunkline doctor` tells more")
        self._heard = time.monotonic()
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._broker_fd = os.pidfd_open(int(received[3][0]))

    def _broker_lost(self) -> None:
        """Start over with another broker; the workers do the same and keep what they have."""
        log.warning("the broker was lost; another one takes over")
        self._close_broker_fd()
        while not self._stopped:
            try:
                self._join_broker(Deadline(5))
                break
            except BrokerGone as error:
                log.error("%s", error)
                self.generation += 1
                time.sleep(0.5)
        for connection in list(self.connections):
            connection._rejoin()

    def _close_broker_fd(self) -> None:
        fd, self._broker_fd = self._broker_fd, -1
        if fd >= 0:
            os.close(fd)

    def shutdown(self) -> None:
        """Close everything this process has open here; ends within a few seconds."""
        for connection in list(self.connections):
            connection.close()
        self._stopped = True
        self._wake()
        self._thread.join(5)
        self._release()

    def _release(self) -> None:
        self._stopped = True
        self._close_broker_fd()
        if self.control is not None:
            self.control.socket.close(linger=300)  # the last words: what was detached
        while self._pool:
            self._pool.pop().close()
        os.close(self._wake_r)
        os.close(self._wake_w)
        self.context.destroy(linger=300)


_client: Client | None = None
_lock = threading.Lock()


def get() -> Client:
    """The client of this process; made (and the broker started) at the first call. Raises BrokerGone."""
    global _client
    client = _client
    if client is None:
        with _lock:
            if _client is None:
                _client = Client()
            client = _client
    return client


def current() -> Client | None:
    """The client of this process if it has one."""
    return _client


def shutdown() -> None:
    """Close all connections of this process and leave the broker, which ends with its last client."""
    global _client
    with _lock:
        client, _client = _client, None
    if client is not None:
        client.shutdown()


def _after_fork() -> None:
    """In a forked child: the parent's sockets and thread are not ours. Its connections become further
    holders when they are used here."""
    global _client, _lock
    parent, _client = _client, None
    _lock = threading.Lock()
    if parent is not None:
        _inherited.append(parent)
        for connection in list(parent.connections):
            connection._after_fork()


_inherited: list[Client] = []
"""Clients of parent processes: kept, so that no finalizer touches their sockets here."""

os.register_at_fork(after_in_child=_after_fork)
atexit.register(shutdown)

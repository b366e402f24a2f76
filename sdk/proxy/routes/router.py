"""The way through the broker's router: a holder's DEALER socket.

The broker passes messages on to the worker, answers messages to itself, and tells of the worker's
end. The modules beside this one are the ways straight to the worker.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import zmq

from trunkline.errors import BrokerGone
from trunkline.wire.envelope import Kind, header, parse
from trunkline.wire.identity import new_identity

__all__ = ["SLICE_S", "Received", "RouterRoute"]

SLICE_S = 0.25
"""Seconds after which a wait looks again whether the object was closed or the broker lost."""


class Received(NamedTuple):
    """A message that has arrived, by any route."""

    sender: bytes
    """The id of the connection, or BROKER."""
    kind: Kind
    request_id: int
    """The number of the request that the message answers; 0 for other messages."""
    fields: list[Any]
    """The fields of the kind's class in `trunkline.wire.messages`."""
    body: list[bytes]


class _Socket(zmq.Socket[bytes]):
    """A ZeroMQ socket that the garbage collector closes in one step.

    In ZeroMQ's own `__del__`, written in Python, an exception of a signal handler (Ctrl-C) could
    leave the socket open. The end of the program would then wait for the socket for ever.
    """

    __del__ = zmq.backend.Socket.close


class RouterRoute:
    """One DEALER socket to a broker. Not safe for two threads at once: its owner keeps them apart.

    `generation` is the process's count of brokers. A route to a broker of a former generation is
    thrown away.
    """

    __slots__ = ("__weakref__", "_next", "_socket", "_timeout_ms", "generation", "identity", "torn")

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], address: str, generation: int
    ) -> None:
        self.identity: bytes = new_identity()
        self.generation: int = generation
        self._timeout_ms = -1
        self._next: Received | None = None
        self.torn: bool = False
        """An exception has interrupted `send` or `peek`: part of a message may have been sent or
        taken. The route cannot be used any more."""
        try:
            sock = self._socket = context.socket(zmq.DEALER, socket_class=_Socket)
        except zmq.ZMQError as error:
            raise BrokerGone(
                f"no further ZeroMQ socket can be opened ({error}); close connections or raise `ulimit -n`"
            ) from None
        sock.setsockopt(zmq.ROUTING_ID, self.identity)
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.SNDHWM, 0)
        sock.setsockopt(zmq.RCVHWM, 0)
        sock.setsockopt(zmq.RECONNECT_IVL, 20)
        sock.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        sock.connect(address)

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """The ZeroMQ socket, for a poller."""
        return self._socket

    @property
    def closed(self) -> bool:
        return self._socket.closed

    def send(
        self, to: bytes, kind: Kind, request_id: int, fields: tuple[Any, ...], *body: bytes
    ) -> None:
        """Send a message to a worker or, with `to` BROKER, to the broker. Never waits."""
        frames = (to, header(kind, request_id, *fields), *body)
        self.torn = True
        self._socket.send_multipart(frames, zmq.NOBLOCK)
        self.torn = False

    def receive(self, timeout_s: float) -> Received | None:
        """Return the next message. `timeout_s`: seconds to wait. None when no message has come."""
        try:
            if timeout_s <= 0:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            else:
                self._set_timeout(max(1, int(timeout_s * 1000)))
                frames = self._socket.recv_multipart()
        except zmq.Again:
            return None
        kind, request_id, fields = parse(frames[1])
        return Received(frames[0], kind, request_id, fields, frames[2:])

    def peek(self, timeout_s: float) -> Received | None:
        """As `receive`, but the message stays the next one until `done` is called.

        So an exception of a signal handler does not lose the message.
        """
        if self._next is None:
            if timeout_s > 0 and not self._socket.poll(max(1, int(timeout_s * 1000))):
                return None
            self.torn = True
            received = self.receive(0)
            self._next = received
            self.torn = False
        return self._next

    def done(self) -> None:
        """Drop the message of the last `peek`, after dealing with it."""
        self._next = None

    def _set_timeout(self, timeout_ms: int) -> None:
        if timeout_ms != self._timeout_ms:
            self._timeout_ms = timeout_ms
            self._socket.setsockopt(zmq.RCVTIMEO, timeout_ms)

    def close(self) -> None:
        self._socket.close(linger=0)

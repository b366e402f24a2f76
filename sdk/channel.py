"""What carries frames between a proxy and its worker: connect, send, receive, readable.

Today every frame goes through the broker's router. Should a later release let the two talk over a
socket of their own, it is done here; nothing above this interface may notice.
"""

from __future__ import annotations

import os
from typing import Any

import zmq

from trunkline.errors import BrokerGone
from trunkline.wire.envelope import Kind, header, parse

__all__ = ["SLICE_S", "Channel", "Received"]

SLICE_S = 0.25
"""A blocked wait looks at the world (closed? broker lost?) at least this often."""

Received = tuple[bytes, Kind, int, list[Any], list[bytes]]


class Channel:
    """One DEALER socket. Not safe for two threads at once: its owner holds a lock.

    `generation` is the client's count of brokers: a channel of a former one is thrown away.
    """

    __slots__ = ("_socket", "_timeout_ms", "generation", "identity")

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, generation: int) -> None:
        self.identity = b"c" + os.urandom(16)
        self.generation = generation
        self._timeout_ms = -1
        try:
            sock = self._socket = context.socket(zmq.DEALER)
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
        """For a poller."""
        return self._socket

    def send(self, to: bytes, kind: Kind, request_id: int, fields: tuple[Any, ...], *body: bytes) -> None:
        self._socket.send_multipart((to, header(kind, request_id, *fields), *body), zmq.NOBLOCK)

    def receive(self, timeout_s: float) -> Received | None:
        """The next message, waiting for it as long as said; None when there is none."""
        try:
            if timeout_s <= 0:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            else:
                self._set_timeout(max(1, int(timeout_s * 1000)))
                frames = self._socket.recv_multipart()
        except zmq.Again:
            return None
        kind, request_id, fields = parse(frames[1])
        return frames[0], kind, request_id, fields, frames[2:]

    def _set_timeout(self, timeout_ms: int) -> None:
        if timeout_ms != self._timeout_ms:
            self._timeout_ms = timeout_ms
            self._socket.setsockopt(zmq.RCVTIMEO, timeout_ms)

    def close(self) -> None:
        self._socket.close(linger=0)

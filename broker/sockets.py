"""The broker's one ZeroMQ socket."""

from __future__ import annotations

import contextlib
import time

import zmq

from trunkline.system.limits import make_context

__all__ = ["RouterSocket"]

UNBIND_S = 0.05
LINGER_MS = 200
SEND_QUEUE = 100_000
BACKLOG = 1024


class RouterSocket:
    """A ROUTER socket at `address`.

    An absent peer is noticed at each send. A peer that takes no messages never blocks the broker.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._context = make_context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.SNDHWM, SEND_QUEUE)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.BACKLOG, BACKLOG)
        self._socket.bind(address)

    def fileno(self) -> int:
        """A file descriptor that becomes readable once for new messages: receive until none is
        left."""
        return int(self._socket.getsockopt(zmq.FD))

    def receive(self) -> list[bytes] | None:
        """The frames of the next message, the sender's routing id first; None without a message."""
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def send(self, frames: list[bytes]) -> bool:
        """Send a message to the peer whose routing id is the first frame.

        Returns whether the peer is there and takes the message.
        """
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            print(
                f"trunkline broker: a peer does not take its messages, one was refused: {frames[0].hex()}"
            )
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True

    def bind_again(self) -> None:
        """Make the removed file of the socket anew. Peers connect again. Raises zmq.ZMQError."""
        with contextlib.suppress(zmq.ZMQError):
            self._socket.unbind(self._address)
        # ZeroMQ's thread removes the file of the old socket a moment later. It must not remove the
        # new file.
        time.sleep(UNBIND_S)
        self._socket.bind(self._address)

    def close(self) -> None:
        """Close the socket when all sent messages have left, at the latest after LINGER_MS."""
        self._socket.close()
        self._context.term()

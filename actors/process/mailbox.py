"""The worker's one ZeroMQ socket, on the asyncio loop.

The file descriptor of a ZeroMQ socket is edge-triggered. It becomes readable once for new messages,
and any operation on the socket, even a send, may consume that edge. So a read goes on until the
queue is empty, and a send checks for messages that came meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import zmq

from trunkline.actors.process.door import Door, Guest
from trunkline.wire.envelope import BROKER, Kind, header

__all__ = ["Mailbox"]

MOST_PIPES = 1000
"""With more bound holders, bindings to closed pipes are removed.

A binding is left over where a pipe closed without a DETACH of the holder.
"""

Receiver = Callable[[bytes, bytes, list[bytes]], None]


class Mailbox:
    """Sends envelopes, and hands incoming ones to `receive(from, header, body)`.

    All methods run on the event loop. Any thread may call `answer`, `guest` and `left_ms`.
    """

    def __init__(self, address: str, identity: bytes, receive: Receiver) -> None:
        self._address = address
        self._receive = receive
        self._context = zmq.Context()
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self.door: Door | None = None
        self._pipes: dict[bytes, bytes] = {}
        self._open(identity)

    def _open(self, identity: bytes) -> None:
        """Open the ZeroMQ socket, and watch its file descriptor."""
        sock = self._socket = self._context.socket(zmq.DEALER)
        sock.setsockopt(zmq.ROUTING_ID, identity)
        sock.setsockopt(zmq.LINGER, 500)
        sock.setsockopt(zmq.SNDHWM, 0)  # the window of each holder bounds the messages, not ZeroMQ
        sock.setsockopt(zmq.RCVHWM, 0)
        sock.setsockopt(zmq.RECONNECT_IVL, 50)
        sock.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        sock.connect(self._address)
        self._fd = int(sock.getsockopt(zmq.FD))
        self._loop.add_reader(self._fd, self._drain)
        self._later()

    def replace(self, identity: bytes) -> None:
        """Open another socket with another identity, and drop messages queued for a lost broker."""
        self._loop.remove_reader(self._fd)
        self._socket.close(linger=0)
        self._open(identity)

    def send(self, to: bytes, head: bytes, *body: bytes | memoryview) -> None:
        """Send through the router, or straight to a guest of the door."""
        to = self._pipes.get(to, to)
        if to.startswith(b"direct-"):
            self.answer(to, head, *body)
            return
        self._socket.send_multipart((to, head, *body), zmq.NOBLOCK, copy=True)
        if not self._scheduled and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._later()

    def bind(self, holder: bytes, sender: bytes) -> bool:
        """Bind a holder to the way on which START came: a pipe, or the router.

        From now on messages for the holder go that way. Returns False for an outdated START: the
        holder has a later pipe already.
        """
        bound = self._pipes.get(holder, b"")
        if not sender.startswith(b"direct-"):
            if (guest := self.guest(bound)) is not None:
                guest.hear()  # the closing of its pipe may be there to be read
            if self.guest(bound) is not None:
                return False
            self._pipes.pop(holder, None)
            return True
        if sender < bound:  # names hold a running number, so the higher name is the later pipe
            return False
        self._pipes[holder] = sender
        if len(self._pipes) > MOST_PIPES and self.door is not None:
            self._pipes = {
                name: guest for name, guest in self._pipes.items() if guest in self.door.guests
            }
        return True

    def rebind(self, old: bytes, new: bytes | None) -> None:
        """Move the binding of a holder to `new`, its new name; None removes the binding.

        The holder may already have a new pipe under the new name, because the old pipe has closed.
        """
        guest = self._pipes.pop(old, None)
        if guest is not None and new is not None:
            self._pipes.setdefault(new, guest)

    def speaks_for(self, guest: bytes, holder: bytes) -> bool:
        """Whether `guest` is the present way of this holder; False for a closed pipe."""
        return not guest.startswith(b"direct-") or self._pipes.get(holder) == guest

    def hear(self, holder: bytes) -> None:
        """Read all messages that this holder has sent through its pipe so far.

        Before START has been read, the holder's pipe is unknown. The worker then reads all
        unclaimed pipes.
        """
        if self.door is None:
            return
        guest = self.door.guests.get(self._pipes.get(holder, b""))
        if guest is not None:
            guest.hear()
            return
        self.door.admit_waiting()
        for guest in list(self.door.guests.values()):
            if not guest.claimed:
                guest.hear()

    def guest(self, name: bytes) -> Guest | None:
        """The guest of this name; None after the guest's end, or for a peer behind the router."""
        return self.door.guests.get(name) if self.door is not None else None

    def left_ms(self, timeout_ms: float, at: float) -> float:
        """Milliseconds left of a request's time; below zero when the sender has given up.

        A request may travel for long, by the door or through a stopped broker. `at`: the end of its
        time by the monotonic clock, which is common to the processes of a machine.
        """
        return min(timeout_ms, (at - time.monotonic()) * 1000)

    def deliver(self, sender: bytes, head: bytes, body: bytes) -> None:
        """On the loop: handle a message that another thread has read."""
        self._receive(sender, head, [body])

    def answer(self, to: bytes, head: bytes, *body: bytes | memoryview) -> bool:
        """Answer a guest of the door, from any thread. Returns False for a router's peer."""
        if not to.startswith(b"direct-"):
            return False
        guest = self.door.guests.get(to) if self.door is not None else None
        if guest is not None:
            guest.send(head, *body)
        return True

    def tell_broker(self, kind: Kind, *fields: object) -> None:
        self.send(BROKER, header(kind, 0, *fields))

    def _later(self) -> None:
        """Drain the socket in the next round of the loop, in case an edge was consumed."""
        self._scheduled = True
        self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        """Read messages until the queue is empty; see the module for the reason."""
        self._scheduled = False
        receive = self._socket.recv_multipart
        sock = self._socket
        # A message may lead to `replace` or `close`: then the old socket is not read on.
        while sock is self._socket and not sock.closed:
            try:
                frames = receive(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(frames) >= 2:
                self._receive(frames[0], frames[1], frames[2:])

    def close(self) -> None:
        """Send queued messages, for half a second at most, and close."""
        if self.door is not None:
            self.door.close()
        self._loop.remove_reader(self._fd)
        self._socket.close()
        self._context.term()

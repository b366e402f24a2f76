"""The worker's one ZeroMQ socket, on the asyncio loop.

The descriptor of a ZeroMQ socket is edge-triggered: it tells of new messages once, and any operation,
a send too, may swallow the edge. So every reading goes on until there is nothing, and every send
looks whether something came in meanwhile.
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
"""With more names than this, those whose guests have left without a word of their end are forgotten."""

Receiver = Callable[[bytes, bytes, list[bytes]], None]


class Mailbox:
    """Sends envelopes and hands incoming ones to `receive(from, header, body)`."""

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
        sock = self._socket = self._context.socket(zmq.DEALER)
        sock.setsockopt(zmq.ROUTING_ID, identity)
        sock.setsockopt(zmq.LINGER, 500)
        sock.setsockopt(zmq.SNDHWM, 0)  # credit bounds what is sent, not ZeroMQ
        sock.setsockopt(zmq.RCVHWM, 0)
        sock.setsockopt(zmq.RECONNECT_IVL, 50)
        sock.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        sock.connect(self._address)
        self._fd = int(sock.getsockopt(zmq.FD))
        self._loop.add_reader(self._fd, self._drain)
        self._later()

    def replace(self, identity: bytes) -> None:
        """Another socket with another identity: what was queued for a lost broker is gone with it."""
        self._loop.remove_reader(self._fd)
        self._socket.close(linger=0)
        self._open(identity)

    def send(self, to: bytes, head: bytes, *body: bytes | memoryview) -> None:
        """To a peer through the router, or to one that came in by the door."""
        to = self._pipes.get(to, to)
        if to.startswith(b"direct-"):
            self.answer(to, head, *body)
            return
        self._socket.send_multipart((to, head, *body), zmq.NOBLOCK, copy=True)
        if not self._scheduled and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._later()

    def bind(self, holder: bytes, sender: bytes) -> bool:
        """What is for this holder goes from now on where its START came from: to a guest, or through the
        router. False when it has come in by a later pipe meanwhile, so that this one is closed."""
        bound = self._pipes.get(holder, b"")
        if not sender.startswith(b"direct-"):
            if (guest := self.guest(bound)) is not None:
                guest.hear()  # its end may be there to be read
            if self.guest(bound) is not None:
                return False
            self._pipes.pop(holder, None)
            return True
        if sender < bound:  # they are counted
            return False
        self._pipes[holder] = sender
        if len(self._pipes) > MOST_PIPES and self.door is not None:
            self._pipes = {
                name: guest for name, guest in self._pipes.items() if guest in self.door.guests
            }
        return True

    def rebind(self, old: bytes, new: bytes | None) -> None:
        """A holder has another name now, or none. It may have come in under that name by a new pipe already,
        because its old one is closed."""
        guest = self._pipes.pop(old, None)
        if guest is not None and new is not None:
            self._pipes.setdefault(new, guest)

    def speaks_for(self, guest: bytes, holder: bytes) -> bool:
        """Whether what comes from there is what this holder says now; False for a pipe that it has closed."""
        return not guest.startswith(b"direct-") or self._pipes.get(holder) == guest

    def hear(self, holder: bytes) -> None:
        """Take in what this holder has sent through its pipe and we have not read yet. Where its first word
        has not come in yet, we do not know which pipe is its own: then all are heard."""
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
        """The guest of this name, who came in by the door and is still there."""
        return self.door.guests.get(name) if self.door is not None else None

    def left_ms(self, timeout_ms: float, at: float) -> float:
        """What is left of a request's time, below zero when its sender has given up. A request may have been
        on its way for long, by the door or through a broker that was stopped; `at` is when its time is over,
        by the monotonic clock, which all processes of a machine share."""
        return min(timeout_ms, (at - time.monotonic()) * 1000)

    def deliver(self, sender: bytes, head: bytes, body: bytes) -> None:
        """On the loop: what another thread has read for it."""
        self._receive(sender, head, [body])

    def answer(self, to: bytes, head: bytes, *body: bytes | memoryview) -> bool:
        """Answer one who came in by the door, from any thread. False: it did not come that way."""
        if not to.startswith(b"direct-"):
            return False
        guest = self.door.guests.get(to) if self.door is not None else None
        if guest is not None:
            guest.send(head, *body)
        return True

    def tell_broker(self, kind: Kind, *fields: object) -> None:
        self.send(BROKER, header(kind, 0, *fields))

    def _later(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._scheduled = False
        receive = self._socket.recv_multipart
        sock = self._socket
        while sock is self._socket and not sock.closed:
            try:
                frames = receive(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(frames) >= 2:
                self._receive(frames[0], frames[1], frames[2:])

    def close(self) -> None:
        """Send what is queued (for half a second at most) and close."""
        if self.door is not None:
            self.door.close()
        self._loop.remove_reader(self._fd)
        self._socket.close()
        self._context.term()

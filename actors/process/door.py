"""The worker's door: a unix socket in the broker's private folder, for pipes and requests.

A request through the router costs a dozen thread wake-ups, because each ZeroMQ socket has an I/O
thread of its own. A direct socket costs two. So the router only introduces the two sides: a proxy
on the same machine sends its requests (write, exec, stats) and reads its stream through the door.
Any other proxy goes through the router.

Threads: the event loop accepts, reads and writes on. `Guest.send`, `send_when_taken` and `listen`
are also called from threads of a database actor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from trunkline.deadline import Deadline
from trunkline.errors import RemoteError
from trunkline.wire.framing import Inlet, Unframer, frame

__all__ = ["Door"]

LOOK_S = 0.25

Receiver = Callable[[bytes, bytes, list[bytes]], None]


class Door:
    """Listens on `path`.

    Incoming messages go to `receive(from, header, body)`, as in the mailbox. `left(from)` tells of
    each guest that has hung up.
    """

    def __init__(self, path: Path, receive: Receiver, left: Callable[[bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._path = path
        self._receive = receive
        self._left = left
        self._count = 0
        self.inlet = Inlet()
        self.guests: dict[bytes, Guest] = {}
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # the door of an earlier worker
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._inode = os.stat(path).st_ino
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    def admit_waiting(self) -> None:
        """Accept the connections in the backlog."""
        while self._accept():
            pass

    def _accept(self) -> bool:
        """Accept one connection. Returns False when no connection waits."""
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return False
        if not _same_user(sock):
            sock.close()
            return True
        self._count += 1
        name = b"direct-" + self._count.to_bytes(8, "big")
        self.guests[name] = Guest(self, name, sock)
        return True

    def close(self) -> None:
        """Close the listener and all guests."""
        self._loop.remove_reader(self._listener)
        self._listener.close()
        # Remove the socket's file only where it is still this door's: a later worker may have made
        # its own.
        with contextlib.suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:
                self._path.unlink()
        for guest in list(self.guests.values()):
            guest.close()


class Guest:
    """One connected proxy. Any thread may answer, and does not wake the loop for an answer."""

    def __init__(self, door: Door, name: bytes, sock: socket.socket) -> None:
        self._door = door
        self.name = name
        self._sock = sock
        self._loop = door._loop
        self._unframer = Unframer()
        # Guards `_unsent` and the order of bytes on the socket: two threads may send at the same
        # time.
        self._lock = threading.Lock()
        self._taken = threading.Condition(self._lock)
        self._unsent = bytearray()
        self.claimed = False
        self._poll: select.poll | None = None
        sock.setblocking(False)
        self._loop.add_reader(sock, self._readable)

    def _readable(self) -> None:
        """On the loop: read once. The loop calls again while bytes are left."""
        try:
            chunk = self._door.inlet.recv(self._sock)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        self._take(chunk)

    # While a guest is claimed, only the thread in `listen` reads its socket and its `_unframer`;
    # the loop does not watch the socket.

    def claim(self) -> None:
        """On the loop: leave this guest's socket to `listen` until `rearm`."""
        self.claimed = True
        self._loop.remove_reader(self._sock)

    def rearm(self) -> None:
        """On the loop: watch this guest again."""
        if self.claimed:
            self.claimed = False
            if self._sock.fileno() >= 0:
                self._loop.add_reader(self._sock, self._readable)

    def listen(self, wake_fd: int, timeout_ms: int, inlet: Inlet) -> list[tuple[bytes, bytes]]:
        """On another thread: wait for the next messages, for `timeout_ms` milliseconds at most.

        Returns no messages when the time is over, when `wake_fd` became readable, or when the guest
        left. The loop notices the guest's leaving by itself.
        """
        try:
            if self._poll is None:
                self._poll = select.poll()
                self._poll.register(self._sock, select.POLLIN)
                self._poll.register(wake_fd, select.POLLIN)
            ready = self._poll.poll(timeout_ms)
            if len(ready) != 1 or ready[0] != (self._sock.fileno(), select.POLLIN):
                return []
            chunk = inlet.recv(self._sock)
            return list(self._unframer.feed(chunk)) if chunk else []
        except (OSError, ValueError, RemoteError):
            return []

    def hear(self) -> None:
        """Read until the socket is empty."""
        with contextlib.suppress(OSError):
            while self._sock.fileno() >= 0:
                self._take(self._door.inlet.recv(self._sock))

    def _take(self, chunk: bytes) -> None:
        """Handle bytes of this guest: each complete message, or the end (b"")."""
        if not chunk:
            self.close()
            self._door._left(self.name)
            return
        try:
            for head, body in self._unframer.feed(chunk):
                self._door._receive(self.name, head, [body])
        except RemoteError:
            self.close()

    def send(self, head: bytes, body: bytes | memoryview = b"") -> bool:
        """Send a message, from any thread. Returns False when the proxy is gone.

        The loop notices the proxy's end by itself. It also writes on the bytes that the socket does
        not take now.
        """
        data = frame(head, body)
        with self._lock:
            if not self._unsent:
                try:
                    data = data[self._sock.send(data) :]
                except BlockingIOError:
                    pass
                except OSError:
                    return False
            if data:
                self._unsent += data
                self._loop.call_soon_threadsafe(self._write_on)
        return True

    def send_when_taken(
        self, head: bytes, body: bytes, limit_s: float, stop: Callable[[], bool]
    ) -> bool:
        """From another thread than the loop's: send a message once all earlier bytes are written.

        Returns False when the proxy is gone, has taken no bytes for `limit_s` seconds, or `stop()`
        is true.
        """
        left, deadline = len(self._unsent), Deadline(limit_s)
        with self._taken:
            while self._unsent and self._sock.fileno() >= 0:
                # `_writable` notifies this condition. LOOK_S bounds the wait, so that `stop` is
                # asked again.
                if stop() or deadline.expired():
                    return False
                self._taken.wait(LOOK_S)
                if len(self._unsent) != left:
                    left, deadline = len(self._unsent), Deadline(limit_s)
            if self._sock.fileno() < 0 or stop():
                return False
        return self.send(head, body)

    def _write_on(self) -> None:
        """On the loop: watch for the socket to take more bytes."""
        if self._sock.fileno() >= 0:
            self._loop.add_writer(self._sock, self._writable)

    def _writable(self) -> None:
        """On the loop: write waiting bytes, and wake the thread in `send_when_taken`."""
        with self._lock:
            try:
                del self._unsent[: self._sock.send(self._unsent)]
            except BlockingIOError:
                return
            except OSError:
                self._unsent.clear()
            if not self._unsent:
                self._loop.remove_writer(self._sock)
            self._taken.notify_all()

    def close(self) -> None:
        """On the loop: close the socket and forget the guest."""
        self._door.guests.pop(self.name, None)
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            with self._lock:
                self._sock.close()
                self._taken.notify_all()


def _same_user(sock: socket.socket) -> bool:
    """Whether a process of this user, or root, has connected.

    The folder already keeps other users out. This is a second check, where the system tells the
    user.
    """
    if sys.platform != "linux":
        return True
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid in (os.getuid(), 0)

"""A holder's stream over a socket of its own to the worker's door, called the pipe.

The end of the socket means the end of the worker. Whether another worker takes over, the broker
tells on the router's socket.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import struct
from collections import deque
from pathlib import Path
from typing import Any

from trunkline.proxy.routes.router import Received
from trunkline.wire.envelope import Kind, header, parse
from trunkline.wire.framing import Inlet, Unframer, frame

__all__ = ["StreamRoute"]

_CONNECT = struct.pack("ll", 0, 250_000)
"""The limit of `connect` and of sending, as a `struct timeval`: 0.25 s."""


class StreamRoute:
    """One socket to a worker's door. Used by one thread at a time; any thread may call `shut` and
    `last_word`."""

    __slots__ = ("_inlet", "_key", "_poll", "_sock", "_unframer", "_unsent", "_waiting", "torn")

    def __init__(self, path: Path, key: bytes) -> None:
        """Connect. OSError when the worker has no door (yet)."""
        sock = self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # A stopped worker accepts no connection. With a full backlog `connect` would wait for
            # ever.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _CONNECT)
            sock.connect(str(path))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        except OSError:
            sock.close()
            raise
        self._key = key
        self.torn: bool = False
        """An exception has interrupted reading or writing. The route cannot be used any more."""
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._unframer = Unframer()
        self._inlet = Inlet()
        self._unsent = bytearray()
        """Bytes not yet taken by the worker, in their order."""
        self._waiting: deque[tuple[bytes, bytes]] = deque()
        """Whole messages that have arrived, header and body, the oldest first."""

    def send(self, kind: Kind, fields: tuple[Any, ...]) -> None:
        """Send a message. Never waits: bytes that a stopped worker does not take now go with the
        next call.

        Raises nothing when the worker is gone; `peek` then raises EOFError.
        """
        self._unsent += frame(header(kind, 0, *fields))
        self.flush()

    def last_word(self, kind: Kind, fields: tuple[Any, ...]) -> None:
        """Send a message at once, so that the worker hears it although this process may be killed
        next.

        For any thread. Not sent while earlier bytes wait, for it would tear their message.
        """
        if not self._unsent:
            with contextlib.suppress(OSError):
                self._sock.send(frame(header(kind, 0, *fields)), socket.MSG_DONTWAIT)

    @property
    def unsent(self) -> bool:
        """Whether this process still keeps bytes not yet taken by the worker."""
        return bool(self._unsent)

    def flush(self) -> None:
        """Send the bytes that are left, as far as the worker takes them now."""
        self.torn = True
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()
        self.torn = False

    def fileno(self) -> int:
        """The file descriptor for a poller; -1 when the socket is closed."""
        return self._sock.fileno()

    def quiet(self) -> bool:
        """Whether no message has come and the worker is not gone."""
        return not self._waiting and not self._poll.poll(0)

    def peek(self, timeout_s: float) -> Received | None:
        """The next message; None when no message has come. `timeout_s`: seconds to wait.

        The message stays the next one until `done` is called. EOFError when the worker is gone and
        all its messages have been read.
        """
        if self._unsent:
            self.flush()
        if not self._waiting and not self._fill(timeout_s):
            return None
        head, body = self._waiting[0]
        kind, request_id, fields = parse(head)
        return Received(self._key, kind, request_id, fields, [body])

    def done(self) -> None:
        """Drop the message of the last `peek`, after dealing with it."""
        del self._waiting[0]

    def _fill(self, timeout_s: float) -> bool:
        """Receive bytes, waiting `timeout_s` seconds at most. Returns whether a whole message has
        arrived."""
        # Polling takes nothing from the socket, so an exception during the wait (Ctrl-C) loses
        # nothing.
        if timeout_s > 0 and not self._poll.poll(max(1, math.ceil(timeout_s * 1000))):
            return False
        self.torn = True
        try:
            chunk = self._inlet.recv(self._sock, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self.torn = False
            return False
        except OSError:
            raise EOFError from None
        if not chunk:
            raise EOFError
        messages = list(self._unframer.feed(chunk))
        # ALL OR NOTHING, see trunkline.proxy.pocket
        self._waiting += messages
        self.torn = False
        return bool(messages)

    def shut(self) -> None:
        """Wake the thread that waits in `peek`. For any other thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()

    def __del__(self) -> None:
        """Close the socket of an object dropped without `close`, without Python's warning."""
        try:  # noqa: SIM105 - at the end of the interpreter contextlib may be gone
            self.close()
        except AttributeError:  # Ctrl-C came before it had a socket
            pass

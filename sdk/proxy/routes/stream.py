"""The proxy's stream over a socket of its own to the worker (the router introduced the two).

The end of the socket is the end of the worker; whether another takes over, the broker says on the router's
route.
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


class StreamRoute:
    """See the module. Used by one thread at a time, but for `shut`."""

    __slots__ = ("_inlet", "_key", "_poll", "_sock", "_unframer", "_unsent", "_waiting", "torn")

    def __init__(self, path: Path, key: bytes) -> None:
        """Connect; OSError when the worker has no door (yet)."""
        sock = self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # A worker that is stopped accepts nobody; past its backlog, connecting would wait for ever.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _CONNECT)
            sock.connect(str(path))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        except OSError:
            sock.close()
            raise
        self._key = key
        self.torn: bool = False
        """An exception has broken off what reads or writes: the route is of no use any more."""
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._unframer = Unframer()
        self._inlet = Inlet()
        self._unsent = bytearray()
        self._waiting: deque[tuple[bytes, bytes]] = deque()

    def send(self, kind: Kind, fields: tuple[Any, ...]) -> None:
        """Never waits: what a worker that is stopped does not take now goes with the next call. If it is
        gone, `receive` will tell."""
        self._unsent += frame(header(kind, 0, *fields))
        self.flush()

    def last_word(self, kind: Kind, fields: tuple[Any, ...]) -> None:
        """Said before the end, and heard by the worker although this process may be killed next; from any
        thread. Not said where something before it could not be."""
        if not self._unsent:
            with contextlib.suppress(OSError):
                self._sock.send(frame(header(kind, 0, *fields)), socket.MSG_DONTWAIT)

    @property
    def unsent(self) -> bool:
        """Whether something that was said is still here: the worker has not taken it yet."""
        return bool(self._unsent)

    def flush(self) -> None:
        """Send what is still here, as far as the worker takes it now."""
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
        """The socket, for a poller; -1 when it is closed."""
        return self._sock.fileno()

    def quiet(self) -> bool:
        """Whether nothing has come (and the worker is not gone)."""
        return not self._waiting and not self._poll.poll(0)

    def peek(self, timeout_s: float) -> Received | None:
        """The next message, waiting for it as long as said; None when there is none. It stays the next one
        until `done` is called. EOFError when the worker is gone and everything it sent has been read."""
        if self._unsent:
            self.flush()
        if not self._waiting and not self._fill(timeout_s):
            return None
        head, body = self._waiting[0]
        kind, request_id, fields = parse(head)
        return Received(self._key, kind, request_id, fields, [body])

    def done(self) -> None:
        """What `peek` gave was dealt with."""
        del self._waiting[0]

    def _fill(self, timeout_s: float) -> bool:
        # The wait takes nothing, so that an exception that ends it (Ctrl-C) loses nothing.
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
        """Wake whoever waits in `receive`, from another thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()

    def __del__(self) -> None:
        """An object that was dropped without `close` takes its socket along, without a warning."""
        try:  # noqa: SIM105 - at the end of the interpreter contextlib may be gone
            self.close()
        except AttributeError:  # Ctrl-C came before it had a socket
            pass

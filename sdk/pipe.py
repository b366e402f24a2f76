"""The proxy's stream over a socket of its own to the worker (the router introduced the two).

The same messages as on the stream channel, without the broker on the way. The end of the pipe is the end
of the worker; whether another takes over, the broker says on the channel.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections import deque
from pathlib import Path
from typing import Any

from trunkline.channel import Received
from trunkline.wire.envelope import Kind, header, parse
from trunkline.wire.framing import Inlet, Unframer, frame

__all__ = ["Pipe"]

CHUNK = 1 << 18
_CONNECT = struct.pack("ll", 0, 250_000)


class Pipe:
    """See the module. Used by one thread at a time, but for `shut`."""

    __slots__ = ("_inlet", "_key", "_poll", "_sock", "_timeout", "_unframer", "_unsent", "_waiting")

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
        self._timeout = 0.0
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
        self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()

    def fileno(self) -> int:
        """The socket, for a poller; -1 when it is closed."""
        return self._sock.fileno()

    def quiet(self) -> bool:
        """Whether nothing has come (and the worker is not gone)."""
        return not self._waiting and not self._poll.poll(0)

    def receive(self, timeout_s: float) -> Received | None:
        """The next message, waiting for it as long as said; None when there is none. EOFError when the worker
        is gone and everything it sent has been read."""
        if self._unsent:
            self._flush()
        if not self._waiting and not self._fill(timeout_s):
            return None
        head, body = self._waiting.popleft()
        kind, request_id, fields = parse(head)
        return self._key, kind, request_id, fields, [body]

    def _fill(self, timeout_s: float) -> bool:
        try:
            if timeout_s <= 0:
                chunk = self._inlet.recv(self._sock, socket.MSG_DONTWAIT)
            else:
                self._set_timeout(timeout_s)
                chunk = self._inlet.recv(self._sock)
        except BlockingIOError:
            return False
        except OSError:
            raise EOFError from None
        if not chunk:
            raise EOFError
        self._waiting.extend(self._unframer.feed(chunk))
        return bool(self._waiting)

    def _set_timeout(self, timeout_s: float) -> None:
        if timeout_s != self._timeout:
            self._timeout = timeout_s
            micros = max(500, int(timeout_s * 1e6))
            value = struct.pack("ll", micros // 1_000_000, micros % 1_000_000)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)

    def shut(self) -> None:
        """Wake whoever waits in `receive`, from another thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()

    def __del__(self) -> None:
        """An object that was dropped without `close` takes its pipe along, without a warning."""
        with contextlib.suppress(AttributeError):  # Ctrl-C came before it had a socket
            self.close()

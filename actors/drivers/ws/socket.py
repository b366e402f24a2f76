"""The socket under websocket-client, for one thread that reads and a loop that writes.

It buffers below the frame reader, which asks for 2, 4 and 8 bytes at a time, and lets only one of the two
into OpenSSL at once.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from typing import Any, NamedTuple

from websocket._abnf import ABNF, frame_buffer

from trunkline.actors.drivers.ws.messages import CLOSE, PROTOCOL_ERROR, Assembler, Violation

__all__ = ["FrameHead", "FrameReader", "SharedSocket"]

_READ = 128 * 1024
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class SharedSocket:
    """A connected socket as websocket-client wants one, over a non-blocking one."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._lock = threading.Lock()
        self._buffer = b""
        self._at = 0
        self.consumed = 0
        """How many bytes `recv` has given out."""
        self.half_sent = False
        """OpenSSL holds a record it could not write: what comes next must be the rest of the same data."""
        self.before_wait: Any = lambda: None
        """Called by the reader before it waits for more: what it has must not wait with it."""

    def unread(self, data: bytes) -> None:
        """Give back bytes that were read too far: `recv` returns them first."""
        self._buffer, self._at = data + self._buffer[self._at :], 0

    def recv(self, count: int, timeout_s: float | None = None) -> bytes:
        """Up to `count` bytes, b"" at the end of the stream. Waits as long as it takes, or for `timeout_s`
        seconds; then TimeoutError."""
        if self._at >= len(self._buffer):
            self._buffer, self._at = self._fill(timeout_s), 0
        piece = self._buffer[self._at : self._at + count]
        self._at += len(piece)
        self.consumed += len(piece)
        return piece

    def send(self, data: bytes) -> int:
        """All of `data`, waiting; for the handshake."""
        view = memoryview(data)
        while view:
            sent = self.try_send(view)
            if not sent:
                self._wait(select.POLLOUT)
            view = view[sent:]
        return len(data)

    def try_send(self, data: bytes | memoryview) -> int:
        """What the kernel takes now, maybe 0. Raises OSError when the link is gone."""
        with self._lock:
            try:
                sent = self._sock.send(data)
            except _WOULD_BLOCK as error:
                self.half_sent = self.half_sent or isinstance(error, ssl.SSLWantWriteError)
                return 0
            self.half_sent = False
            return sent

    def can_write(self) -> bool:
        """Whether the kernel takes something now. Asked before a message is begun."""
        poller = select.poll()
        poller.register(self._sock.fileno(), select.POLLOUT)
        return bool(poller.poll(0))

    def start_tls(self, context: ssl.SSLContext, hostname: str) -> None:
        secure = context.wrap_socket(
            self._sock, server_hostname=hostname, do_handshake_on_connect=False
        )
        self._sock = secure
        while True:
            try:
                return secure.do_handshake()
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)

    def hang_up(self) -> None:
        """Wake whoever waits here, from any thread; `close` may follow when they have gone."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    def gettimeout(self) -> float | None:
        """None: it blocks, as far as websocket-client is concerned."""
        return None

    def _fill(self, timeout_s: float | None) -> bytes:
        announced = False
        while True:
            with self._lock:
                try:
                    return self._sock.recv(_READ)
                except _WOULD_BLOCK:
                    pass
                except ssl.SSLEOFError:
                    return b""
            if not announced:
                announced = True
                self.before_wait()
            self._wait(select.POLLIN, timeout_s)

    def _wait(self, event: int, timeout_s: float | None = None) -> None:
        poller = select.poll()
        poller.register(self._sock.fileno(), event)
        if not poller.poll(None if timeout_s is None else timeout_s * 1000):
            raise TimeoutError


class FrameHead(NamedTuple):
    """The first two bytes of a frame, in the order in which websocket-client keeps their parts."""

    fin: int
    rsv1: int
    rsv2: int
    rsv3: int
    opcode: int
    has_mask: int
    length_bits: int
    """The payload's length, or 126 and 127 where 2 or 8 bytes with the length follow."""


class FrameReader(frame_buffer):
    """The frame reader, refusing a frame by its header: before its payload is buffered."""

    def __init__(self, recv: Any, assembler: Assembler) -> None:
        super().__init__(recv, skip_utf8_validation=True)
        self._assembler = assembler

    def recv_frame(self) -> ABNF:
        """Without websocket-client's own look at the frame: the assembler's has better words, and keeps what
        a close frame says that may not be said like that."""
        self.recv_header()
        self.recv_length()
        payload = self.recv_strict(self.length or 0)
        head = self._head()
        self.clear()
        return ABNF(head.fin, head.rsv1, head.rsv2, head.rsv3, head.opcode, 0, payload)

    def recv_length(self) -> None:
        super().recv_length()
        length, opcode = self.length or 0, self._head().opcode
        if self.has_mask():
            raise Violation(PROTOCOL_ERROR, "a masked frame")
        if opcode < CLOSE and length > self._assembler.room():
            raise self._assembler.too_big()
        if opcode >= CLOSE and length > 125:
            raise Violation(PROTOCOL_ERROR, "a control frame that is fragmented or too long")

    def _head(self) -> FrameHead:
        """The frame's first two bytes, after `recv_header`."""
        assert self.header is not None
        return FrameHead._make(self.header)

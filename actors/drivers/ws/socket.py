"""The socket under websocket-client, for one thread that reads and an event loop that writes.

It buffers below the frame reader, which asks for 2, 4 and 8 bytes at a time. A lock lets only one
of the two threads into OpenSSL at a time.
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
    """A socket as websocket-client wants it, over a connected non-blocking socket.

    `recv`, `send` and `start_tls` block, and run in the reading thread. `try_send` and `can_write`
    do not block, and run on the event loop. The lock is never held while a thread waits.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._lock = threading.Lock()
        self._buffer = b""
        self._at = 0
        self.consumed = 0
        """How many bytes `recv` has returned."""
        self.half_sent = False
        """Whether OpenSSL holds a record that it could not write. The next bytes must be the rest
        of the same data.
        """
        self.before_wait: Any = lambda: None
        """Callback before the reader waits for more bytes: messages that it has must not wait with
        it.
        """

    def unread(self, data: bytes) -> None:
        """Give back bytes that were read too far: `recv` returns them first."""
        self._buffer, self._at = data + self._buffer[self._at :], 0

    def recv(self, count: int, timeout_s: float | None = None) -> bytes:
        """Return up to `count` bytes; b"" at the end of the stream.

        Waits without a limit, or for `timeout_s` seconds; then raises TimeoutError.
        """
        if self._at >= len(self._buffer):
            self._buffer, self._at = self._fill(timeout_s), 0
        piece = self._buffer[self._at : self._at + count]
        self._at += len(piece)
        self.consumed += len(piece)
        return piece

    def send(self, data: bytes) -> int:
        """Send `data` and wait where necessary. For the handshake."""
        view = memoryview(data)
        while view:
            sent = self.try_send(view)
            if not sent:
                self._wait(select.POLLOUT)
            view = view[sent:]
        return len(data)

    def try_send(self, data: bytes | memoryview) -> int:
        """Send as much as the kernel takes now, and return the count, maybe 0.

        OSError where the link is gone.
        """
        with self._lock:
            try:
                sent = self._sock.send(data)
            except _WOULD_BLOCK as error:
                self.half_sent = self.half_sent or isinstance(error, ssl.SSLWantWriteError)
                return 0
            self.half_sent = False
            return sent

    def can_write(self) -> bool:
        """Whether the kernel takes bytes now. Asked before a message is begun."""
        poller = select.poll()
        poller.register(self._sock.fileno(), select.POLLOUT)
        return bool(poller.poll(0))

    def start_tls(self, context: ssl.SSLContext, hostname: str) -> None:
        """Make the TLS handshake, and wait where necessary. Runs before the event loop uses the
        socket.
        """
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
        """Wake all threads that wait on this socket.

        May be called by any thread; `close` may follow later.
        """
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    def gettimeout(self) -> float | None:
        """Return None: for websocket-client the socket blocks."""
        return None

    def _fill(self, timeout_s: float | None) -> bytes:
        """Read from the kernel. Waits without the lock, so the event loop can write meanwhile."""
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
        """Wait for an event of the socket; TimeoutError after the given time."""
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
    """The payload's length, or 126 or 127 where 2 or 8 bytes with the length follow."""


class FrameReader(frame_buffer):
    """The frame reader, which refuses a frame by its header, before the payload is buffered."""

    def __init__(self, recv: Any, assembler: Assembler) -> None:
        super().__init__(recv, skip_utf8_validation=True)
        self._assembler = assembler

    def recv_frame(self) -> ABNF:
        """Read a frame without websocket-client's own check.

        The assembler's check has better words, and keeps the words of a close frame that breaks a
        rule.
        """
        self.recv_header()
        self.recv_length()
        payload = self.recv_strict(self.length or 0)
        head = self._head()
        self.clear()
        return ABNF(head.fin, head.rsv1, head.rsv2, head.rsv3, head.opcode, 0, payload)

    def recv_length(self) -> None:
        """Read the payload's length, and refuse a frame that is masked, too long, or over
        `max_size`.
        """
        super().recv_length()
        length, opcode = self.length or 0, self._head().opcode
        if self.has_mask():
            raise Violation(PROTOCOL_ERROR, "a masked frame")
        if opcode < CLOSE and length > self._assembler.room():
            raise self._assembler.too_big()
        if opcode >= CLOSE and length > 125:
            raise Violation(PROTOCOL_ERROR, "a control frame that is fragmented or too long")

    def _head(self) -> FrameHead:
        """Return the first two bytes of the frame; valid after `recv_header`."""
        assert self.header is not None
        return FrameHead._make(self.header)

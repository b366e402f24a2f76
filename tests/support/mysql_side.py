"""A MySQL server that only greets and logs in, as strangely as a test wants, and remembers what it got."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from types import TracebackType

from tests.servers.base import HOST, exactly

__all__ = ["GreetingServer"]

_TLS, _REST = 0x0800, 0x00080000 | 0x8000 | 0x0200 | 0x0008 | 0x2000 | 0x0001
_NONCE = b"12345678", b"abcdefghijkl\0"


class GreetingServer:
    """`steps` are the packets that it answers the login with, one after each packet of the client's.

    `wire` is what came in plain, `inside` what came over TLS (only with `context`).
    """

    def __init__(
        self,
        *steps: bytes,
        context: ssl.SSLContext | None = None,
        plugin: bytes = b"caching_sha2_password",
    ) -> None:
        self._steps, self._context, self._plugin = steps, context, plugin
        self.wire = bytearray()
        self.inside = bytearray()
        self.logins = 0
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> GreetingServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(20)

    def _serve(self) -> None:
        while True:
            try:
                sock = self._listener.accept()[0]
            except OSError:
                return
            self.logins += 1
            with sock:
                sock.settimeout(20)
                try:
                    self._log_in(sock)
                except (OSError, EOFError):
                    continue

    def _log_in(self, sock: socket.socket) -> None:
        sock.sendall(_packet(0, self._greeting()))
        got, number = self._take(sock, self.wire)
        if self._context is not None and struct.unpack("<I", got[:4])[0] & _TLS and len(got) == 32:
            with self._context.wrap_socket(sock, server_side=True) as tls:
                self._converse(tls, self.inside, self._take(tls, self.inside)[1])
            return
        self._converse(sock, self.wire, number)

    def _converse(self, sock: socket.socket, seen: bytearray, number: int) -> None:
        for step in self._steps:
            sock.sendall(_packet(number + 1, step))
            number = self._take(sock, seen)[1]

    def _greeting(self) -> bytes:
        flags = _REST | (_TLS if self._context is not None else 0)
        parts = struct.pack("<H", flags & 0xFFFF), b"\x2d", b"\2\0", struct.pack("<H", flags >> 16)
        first = b"\x0a8.0.36\0" + struct.pack("<I", 7) + _NONCE[0] + b"\0"
        return first + b"".join(parts) + b"\x15" + bytes(10) + _NONCE[1] + self._plugin + b"\0"

    def _take(self, sock: socket.socket, seen: bytearray) -> tuple[bytes, int]:
        head = exactly(sock, 4)
        body = exactly(sock, int.from_bytes(head[:3], "little"))
        seen += head + body
        return body, head[3]


def _packet(number: int, body: bytes) -> bytes:
    return struct.pack("<I", len(body))[:3] + bytes([number & 255]) + body

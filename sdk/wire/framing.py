"""Envelopes on a byte stream: the direct socket between a proxy and its worker.

A message is `[total length: 4 bytes][header length: 2 bytes][header][body]`. Lengths are
big-endian. The total length counts all bytes after itself. A message has at most one body frame. It
names no peer, because a socket has only two ends.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from trunkline.errors import RemoteError

__all__ = ["MAX_BYTES", "Inlet", "Unframer", "frame"]

MAX_BYTES = 1 << 30
_LENGTHS = struct.Struct("!IH")


def frame(head: bytes, body: bytes | memoryview = b"") -> bytes:
    """Return a message as bytes."""
    return b"".join((_LENGTHS.pack(2 + len(head) + len(body), len(head)), head, body))


class Inlet:
    """Reads from sockets through one buffer that is kept.

    `recv(262144)` allocates and shrinks a block of that size at each call, which costs six times as
    much as a small message itself.
    """

    __slots__ = ("_view",)

    def __init__(self, size: int = 1 << 18) -> None:
        self._view = memoryview(bytearray(size))

    def recv(self, sock: socket.socket, flags: int = 0) -> bytes:
        """As `sock.recv`."""
        return bytes(self._view[: sock.recv_into(self._view, 0, flags)])


class Unframer:
    """Cuts a byte stream back into messages."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, chunk: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the messages (header, body) that are complete now.

        Raises RemoteError for bytes that are no stream of messages.
        """
        if not self._data and len(chunk) >= 6:
            total, size = _LENGTHS.unpack_from(chunk)
            # the usual case: one complete message
            if len(chunk) == total + 4 and size <= total - 2:
                yield chunk[6 : 6 + size], chunk[6 + size :]
                return
        data = self._data
        data += chunk
        while len(data) >= 6:
            total, size = _LENGTHS.unpack_from(data)
            if total > MAX_BYTES or size > total - 2:
                raise RemoteError("what arrived on a worker's socket is not Trunkline's")
            if len(data) < total + 4:
                return
            message = bytes(data[6 : total + 4])
            del data[: total + 4]
            yield message[:size], message[size:]

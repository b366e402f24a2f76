"""The compressed link, read rightly.

mysql-connector-python takes each compressed packet for a whole number of plain ones, with one continuation at
most; servers cut their answers every 16 kB, wherever that falls, so that results of some size are not
readable. Here what comes is one stream, out of which the packets are read.
"""

from __future__ import annotations

import socket
import zlib
from functools import cache

from mysql.connector import network

__all__ = ["install"]


class _Compressed(network.NetworkBrokerCompressed):
    """Overrides how bytes are had, and leaves the rest to the library."""

    def __init__(self) -> None:
        super().__init__()
        self._plain = bytearray()

    def recv(self, sock: socket.socket, address: str) -> bytearray:
        """The next packet: as on a plain link, out of the stream below."""
        return network.NetworkBrokerPlain.recv(self, sock, address)

    def _recv_chunk(self, sock: socket.socket, size: int = 0) -> bytearray:
        while len(self._plain) < size:
            head = super()._recv_chunk(sock, size=network.COMPRESSED_PACKET_HEADER_LENGTH)
            self._compressed_pktnr = head[3]
            body = super()._recv_chunk(sock, size=int.from_bytes(head[:3], "little"))
            # with a length of 0 it was too short to be compressed
            self._plain += zlib.decompress(body) if any(head[4:7]) else body
        found = self._plain[:size]
        del self._plain[:size]
        return found


@cache
def install() -> None:
    """Have the library use it for every compressed link of this process."""
    network.NetworkBrokerCompressed = _Compressed  # type: ignore[misc]

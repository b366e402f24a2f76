"""A correct reader for compressed links.

mysql-connector-python expects a whole number of plain packets in each compressed packet, with one
continuation at most. But servers cut their answers every 16 kB at any place, so the library
cannot read results of some sizes.
Here the arriving data is one stream, and packets are read out of that stream.
"""

from __future__ import annotations

import socket
import zlib
from functools import cache

from mysql.connector import network

__all__ = ["install"]


class _Compressed(network.NetworkBrokerCompressed):
    """Overrides how bytes are read; all else is the library's."""

    def __init__(self) -> None:
        super().__init__()
        self._plain = bytearray()
        """Decompressed bytes that were not read yet."""

    def recv(self, sock: socket.socket, address: str) -> bytearray:
        """The next packet, read from the stream below as on a plain link."""
        return network.NetworkBrokerPlain.recv(self, sock, address)

    def _recv_chunk(self, sock: socket.socket, size: int = 0) -> bytearray:
        """The next `size` bytes of the decompressed stream."""
        while len(self._plain) < size:
            head = super()._recv_chunk(sock, size=network.COMPRESSED_PACKET_HEADER_LENGTH)
            self._compressed_pktnr = head[3]
            body = super()._recv_chunk(sock, size=int.from_bytes(head[:3], "little"))
            # A length of 0 means that the packet was too short to be compressed.
            self._plain += zlib.decompress(body) if any(head[4:7]) else body
        found = self._plain[:size]
        del self._plain[:size]
        return found


@cache
def install() -> None:
    """Have the library use this class for every compressed link of this process."""
    network.NetworkBrokerCompressed = _Compressed  # type: ignore[misc]

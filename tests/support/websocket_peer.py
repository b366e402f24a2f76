"""WebSocket servers by hand, for peers that no library would be."""

from __future__ import annotations

import base64
import hashlib
import re

from tests.support.sockets import Handler, Peer

__all__ = ["proof_of", "silent_after", "upgrade"]


def proof_of(request: bytes) -> bytes:
    """The `Sec-WebSocket-Accept` that belongs to a request."""
    found = re.search(rb"(?i)sec-websocket-key: (\S+)", request)
    assert found, request
    return base64.b64encode(
        hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    )


def upgrade(peer: Peer, *headers: str) -> bytes:
    """Answer the opening handshake rightly, with more headers; the request."""
    request = peer.read_until(b"\r\n\r\n")
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Accept: {proof_of(request).decode()}", *filter(None, headers)]
    peer.send("\r\n".join([*lines, "", ""]).encode())
    return request


def silent_after(data: bytes) -> Handler:
    """A server that upgrades, sends `data` and then neither reads nor answers."""

    def handler(peer: Peer) -> None:
        upgrade(peer)
        peer.send(data)
        peer.stopping.wait()

    return handler

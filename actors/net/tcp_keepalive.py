"""The kernel's keepalive: finds a peer whose machine or network is gone, also while nobody sends anything."""

from __future__ import annotations

import socket

__all__ = ["COUNT", "EVERY_S", "IDLE_S", "keep_alive"]

IDLE_S, EVERY_S, COUNT = 30, 10, 4
"""Asked after so long without a byte, then so often, until so many questions were not answered. The sum of it
stands in docs/liveness.md."""
_OPTIONS = {
    "TCP_KEEPIDLE": IDLE_S,
    "TCP_KEEPALIVE": IDLE_S,
    "TCP_KEEPINTVL": EVERY_S,
    "TCP_KEEPCNT": COUNT,
}
"""The first is called by its second name on macOS."""


def keep_alive(sock: socket.socket) -> None:
    """Turn it on for a TCP socket. OSError for one that has no such thing."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS.items():
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)

"""The kernel's TCP keepalive: finds a peer whose machine or network is gone, on idle links too."""

from __future__ import annotations

import socket

__all__ = ["COUNT", "EVERY_S", "IDLE_S", "keep_alive"]

IDLE_S, EVERY_S, COUNT = 30, 10, 4
"""The kernel probes after `IDLE_S` seconds without a byte, then every `EVERY_S` seconds. After
`COUNT` unanswered probes the link is lost: 70 seconds in all, as docs/liveness.md says."""
_OPTIONS = {
    "TCP_KEEPIDLE": IDLE_S,
    "TCP_KEEPALIVE": IDLE_S,
    "TCP_KEEPINTVL": EVERY_S,
    "TCP_KEEPCNT": COUNT,
}
"""Socket options and values. TCP_KEEPALIVE is the name of TCP_KEEPIDLE on macOS."""


def keep_alive(sock: socket.socket) -> None:
    """Turn keepalive on for a TCP socket. OSError for a socket without keepalive."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS.items():
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)

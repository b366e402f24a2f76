"""The end of a socket: whether the peer has closed it, and how it is broken off.

The functions are part of `trunkline.actors.driver`, from where drivers import them.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct

__all__ = ["break_socket", "hung_up", "reset_at_close"]

_HANG_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


def hung_up(fd: int) -> bool:
    """Whether the peer of a socket has closed it (what it said before may still wait to be read)."""
    if fd < 0:
        return True
    poll = select.poll()
    poll.register(fd, _HANG_UP)
    return bool(poll.poll(0))


def reset_at_close(fd: int) -> None:
    """Have the peer of a socket hear at once that nothing more is taken when it is closed, instead of waiting
    for minutes until its last data are acknowledged."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def break_socket(fd: int) -> None:
    """End the link of another thread's socket: a thread that waits for it goes on with an error."""
    reset_at_close(fd)
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        sock.shutdown(socket.SHUT_RDWR)

"""The end of a socket: detecting a close by the peer, and breaking a link off.

Drivers import the functions from `trunkline.actors.driver`.
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
    """Whether the peer has closed the socket. Data from before may still wait to be read."""
    if fd < 0:
        return True
    poll = select.poll()
    poll.register(fd, _HANG_UP)
    return bool(poll.poll(0))


def reset_at_close(fd: int) -> None:
    """Make the later close of a socket send a reset (SO_LINGER with 0 seconds).

    So the peer learns at once that nothing more is taken. Otherwise the peer may wait for minutes
    until its last data are acknowledged."""
    # The duplicate file descriptor serves to set the option. The original stays open.
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def break_socket(fd: int) -> None:
    """End the link of another thread's socket. A thread that waits in a call gets an error."""
    reset_at_close(fd)
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        sock.shutdown(socket.SHUT_RDWR)

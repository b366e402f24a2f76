"""The kernel's counts of bytes over a socket, which include bytes of incomplete messages."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import Callable, Iterator

from trunkline.actors.net.liveness import Traffic

__all__ = ["carried", "is_carried", "socket_traffic", "unread_bytes"]

_TCP_INFO = 11
_ACKED, _RECEIVED, _ENOUGH = 120, 128, 136
"""Offsets of tcpi_bytes_acked and tcpi_bytes_received in Linux's struct tcp_info (since 4.1), and
the size of the struct up to the end of both."""


_carriers: dict[int, tuple[int, Callable[[], int]]] = {}
"""By the inode of the driver's end of a pair of sockets (see `proxy_tls`): the file descriptor of
the TCP socket to the peer, and a function that returns how many bytes wait in this process for
it."""


@contextlib.contextmanager
def carried(fd: int, carrier: int, unsent: Callable[[], int]) -> Iterator[None]:
    """Within the block, count the traffic of the TCP socket `carrier` for the socket `fd`.

    Both are file descriptors. `unsent()`: how many bytes wait in this process for `carrier`."""
    # By inode, because the number of a closed file descriptor may soon belong to another socket.
    inode = os.fstat(fd).st_ino
    _carriers[inode] = carrier, unsent
    try:
        yield
    finally:
        del _carriers[inode]


def is_carried(fd: int) -> bool:
    """Whether another socket carries the bytes of the socket `fd` to the peer."""
    try:
        return bool(_carriers) and os.fstat(fd).st_ino in _carriers
    except OSError:
        return False


def socket_traffic(fd: int, unsent: int, counted: Traffic) -> Traffic:
    """The traffic of the connected socket with the file descriptor `fd`.

    `unsent`: how many bytes wait in this process for the socket. `counted`: the caller's own
    counts, returned unchanged where the kernel has none (no Linux, no TCP, a closed socket).
    `counted.data` is always kept.
    """
    if fd < 0 or not sys.platform.startswith("linux"):
        return counted
    if is_carried(fd):
        carrier, more = _carriers[os.fstat(fd).st_ino]
        with contextlib.suppress(OSError):
            unsent += _ask(fd, termios.TIOCOUTQ) + more()
        fd = carrier
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return counted
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _ENOUGH)
        if len(info) == _ENOUGH:
            acked, received = struct.unpack_from("=QQ", info, _ACKED)
            waiting = _ask(fd, termios.TIOCOUTQ)
            return Traffic(received, acked + waiting + unsent, waiting + unsent, counted.data)
    return counted


def unread_bytes(fd: int) -> int:
    """How many received bytes the kernel holds unread; 0 for a closed socket."""
    with contextlib.suppress(OSError):
        return _ask(fd, termios.FIONREAD) if fd >= 0 else 0
    return 0


def _ask(fd: int, request: int) -> int:
    number = array.array("i", [0])
    fcntl.ioctl(fd, request, number)
    return number[0]

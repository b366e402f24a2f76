"""How many bytes have gone over a socket, from the kernel: also those of a message that is not whole yet."""

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
"""Where tcpi_bytes_acked and tcpi_bytes_received stand in Linux's struct tcp_info (since 4.1)."""


_carriers: dict[int, tuple[int, Callable[[], int]]] = {}
"""By the inode of one end of a pair of sockets: the TCP socket that carries its bytes to and from the peer,
and how many bytes wait in this process for it."""


@contextlib.contextmanager
def carried(fd: int, carrier: int, unsent: Callable[[], int]) -> Iterator[None]:
    """In the block, the traffic of the socket `fd` is that of the TCP socket `carrier` (file descriptors)."""
    inode = os.fstat(fd).st_ino
    _carriers[inode] = carrier, unsent
    try:
        yield
    finally:
        del _carriers[inode]


def is_carried(fd: int) -> bool:
    """Whether another socket carries what goes over `fd`, so that counts of bytes are not those of `fd`."""
    try:
        return bool(_carriers) and os.fstat(fd).st_ino in _carriers
    except OSError:
        return False


def socket_traffic(fd: int, unsent: int, counted: Traffic) -> Traffic:
    """The traffic of the connected socket with the file descriptor `fd`.

    `unsent` is how many bytes wait in this process for the socket to take them. `counted` is what the caller
    has counted itself: that is the result where the kernel does not tell (no Linux, no TCP, a closed socket),
    and `counted.data` is kept in any case.
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
    """How many bytes the kernel holds that were received and not read yet; 0 for a closed socket."""
    with contextlib.suppress(OSError):
        return _ask(fd, termios.FIONREAD) if fd >= 0 else 0
    return 0


def _ask(fd: int, request: int) -> int:
    number = array.array("i", [0])
    fcntl.ioctl(fd, request, number)
    return number[0]

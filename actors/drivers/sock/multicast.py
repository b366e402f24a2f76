"""Multicast groups for `udp://`: joined at opening, so datagrams to the group are read."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
from typing import Any

from trunkline.actors.driver import FatalError
from trunkline.errors import DialError

__all__ = ["is_multicast", "join"]


def is_multicast(sockaddr: tuple[Any, ...]) -> bool:
    """Whether a socket address, as returned by getaddrinfo, belongs to a group."""
    return ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]).is_multicast


def join(
    sock: socket.socket, sockaddr: tuple[Any, ...], interface: str | None, local_ip: str | None
) -> None:
    """Bind `sock` to the group and its port, and join the group.

    `interface`: the name of an interface of this machine, or its IPv4 address. `local_ip` serves as
    the latter. Without both, the group is joined on the interface to which the system routes it,
    and on the loopback interface, where programs of this machine may send. DialError says what
    could not be used.
    """
    six = sock.family == socket.AF_INET6
    name = interface or (None if six else local_ip)
    index, address = _interface(name, six=six)
    if not name and six and sockaddr[3]:
        index = sockaddr[3]  # the zone of the address
    place = f"the group {sockaddr[0]}"
    sock.setsockopt(
        socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
    )  # other programs may read the group, too
    try:
        sock.bind((sockaddr[0], sockaddr[1], 0, index) if six else sockaddr)
    except OSError as error:
        raise DialError(
            f"{place} cannot be read on port {sockaddr[1]}: {error.strerror or error}",
            code=error.errno,
        ) from None
    try:
        _join_at(sock, sockaddr[0], index, address)
        if index or address:
            _send_from(sock, index, address)
    except OSError as error:
        raise _refused(error, place, name) from None
    if not (index or address):
        with contextlib.suppress(OSError):  # optional: the routed interface may be the loopback one
            _join_at(sock, sockaddr[0], socket.if_nametoindex("lo"), b"")


def _interface(name: str | None, *, six: bool) -> tuple[int, bytes]:
    """Return the index or the IPv4 address of the interface; (0, b"") for no particular one."""
    if not name:
        return 0, b""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            return socket.if_nametoindex(name), b""
        except OSError:
            known = ", ".join(known for _, known in socket.if_nameindex())
            raise FatalError(
                f"interface={name}: this machine has no such interface; it has {known}"
            ) from None
    if six or address.version == 6:
        raise FatalError(
            f"interface={name}: name the interface (as eth0), not its address, for this group"
        )
    return 0, address.packed


def _join_at(sock: socket.socket, group: str, index: int, address: bytes) -> None:
    """Join the group on one interface, given by index or IPv4 address."""
    if sock.family == socket.AF_INET6:
        packed = socket.inet_pton(socket.AF_INET6, group.partition("%")[0]) + struct.pack(
            "@I", index
        )
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, packed)
        return
    mreqn = socket.inet_aton(group) + (address or bytes(4)) + struct.pack("@i", index)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, mreqn)


def _send_from(sock: socket.socket, index: int, address: bytes) -> None:
    """Send datagrams to the group from this interface."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        return
    mreqn = bytes(4) + (address or bytes(4)) + struct.pack("@i", index)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, mreqn)


def _refused(error: OSError, place: str, name: str | None) -> DialError:
    """Return the error for a group that cannot be joined."""
    if error.errno in (errno.ENODEV, errno.EADDRNOTAVAIL):
        which = (
            f"interface={name} of this machine" if name else "any interface (no route leads to it)"
        )
        text = f"{place} cannot be joined on {which}; give interface= with the name of another one"
    else:
        text = f"{place} cannot be joined: {error.strerror or error}"
    return DialError(text, code=error.errno)

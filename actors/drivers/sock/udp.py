"""Datagrams: `udp://host:port`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
from typing import Any, ClassVar

from trunkline.actors.driver import FatalError, Overflow, Sink, StreamDriver
from trunkline.actors.drivers.sock import multicast as sock_multicast
from trunkline.actors.net import dialer
from trunkline.address import Address
from trunkline.deadline import Deadline
from trunkline.errors import DialError, RefusedError

__all__ = ["UdpDriver"]


class UdpDriver(StreamDriver):
    """A connected socket, or a member of a multicast group. One datagram is one message.

    The driver reads the socket itself: a burst of up to 256 datagrams for each turn of the event
    loop. Linux reports with a datagram how many the kernel has thrown away so far.
    """

    schemes: ClassVar[tuple[str, ...]] = ("udp",)
    overflow: ClassVar[Overflow] = Overflow.DROP_OLDEST
    lost_is_none: ClassVar[bool] = True

    _BURST = 256
    """The most datagrams of one turn, so that other tasks of the event loop get their turn, too."""
    _RECEIVE_BUFFER = 4 << 20
    """Bytes of the kernel's receive buffer, for bursts that come while the loop is busy."""
    _SO_RXQ_OVFL = 40
    """Linux's socket option for the count of datagrams thrown away, which Python does not name."""

    def __init__(self, address: Address, sink: Sink) -> None:
        super().__init__(address, sink)
        self._sock: socket.socket | None = None
        self._to: Any = None
        """The destination where the socket is not connected: a group, or a broadcast address."""
        self._refused = False
        """Whether the user was warned of a network error since the last datagram."""
        self._kernel_drops = 0
        """The kernel's counter of datagrams thrown away, as last read."""

    async def open(self, deadline: Deadline) -> None:
        """Resolve the name, make the socket, and join the group or connect."""
        host, port = self.address.host or "", self.address.port or 0
        if self.address.option("proxy") is not None:
            raise FatalError("proxy= does not work with udp")
        async with dialer.within(deadline, f"the name {host} was not resolved"):
            infos = await dialer.resolve(host, port, socket.SOCK_DGRAM)
        local_ip = self.address.option("local_ip")
        if local_ip:
            infos = dialer.of_family(infos, local_ip, host)
        family, kind, protocol, _, sockaddr = infos[0]
        sock = socket.socket(family, kind, protocol)
        interface = self.address.option("interface")
        try:
            sock.setblocking(False)
            self._ask_kernel(sock)
            if sock_multicast.is_multicast(sockaddr):
                sock_multicast.join(sock, sockaddr, interface, local_ip)
                self._to = sockaddr
            else:
                if interface:
                    raise FatalError(
                        f"interface= is for multicast groups, and {host} is none: leave it out"
                    )
                if local_ip:
                    dialer.bind_local(sock, local_ip)
                self._connect(sock, sockaddr)
        except DialError:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            raise DialError(f"{self.peer} cannot be reached: {error.strerror or error}") from None
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        self.resume()

    def _connect(self, sock: socket.socket, sockaddr: Any) -> None:
        """Connect the socket, or prepare it for a broadcast address.

        A connected socket receives datagrams of its peer only, and reports the ICMP refusal of a
        closed port. Answers to a broadcast come from many peers, so a broadcast socket stays
        unconnected.
        """
        try:
            sock.connect(sockaddr)
        except PermissionError:  # a broadcast address
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            self._to = sockaddr

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        """Send one datagram. Returns its size in bytes, or 0 when the kernel took nothing by the
        deadline.
        """
        payload = data.encode() if isinstance(data, str) else data
        while True:
            if self._sock is None:
                raise ConnectionError("the link is gone")
            try:
                if self._to is None:
                    return self._sock.send(payload)
                return self._sock.sendto(payload, self._to)
            except BlockingIOError:
                if not await self._writable(self._sock, deadline):
                    return 0
            except OSError as error:
                if error.errno == errno.ECONNREFUSED:
                    self._note(error)  # belongs to an earlier datagram: try again
                else:
                    raise _refused(error, len(payload), self._sock.family, self.peer) from None

    async def close(self) -> None:
        if self._sock is not None:
            self.pause()
            sock, self._sock = self._sock, None
            sock.close()

    def pause(self) -> None:
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())

    def resume(self) -> None:
        if self._sock is not None:
            asyncio.get_running_loop().add_reader(self._sock.fileno(), self._receive)

    def _ask_kernel(self, sock: socket.socket) -> None:
        """Ask for a receive buffer of 4 MiB, and for the count of datagrams thrown away."""
        for option, value in ((socket.SO_RCVBUF, self._RECEIVE_BUFFER), (self._SO_RXQ_OVFL, 1)):
            with contextlib.suppress(OSError):  # optional: not every system has these
                sock.setsockopt(socket.SOL_SOCKET, option, value)

    def _receive(self) -> None:
        """Read a burst of datagrams and hand them over together."""
        batch: list[str | bytes] = []
        drops = b""
        for _ in range(self._BURST):
            try:
                assert self._sock is not None
                data, ancillary, _, _ = self._sock.recvmsg(65536, 64)
            except BlockingIOError:
                break
            except OSError as error:
                self._note(error)
                break
            batch.append(data)
            if ancillary:
                drops = ancillary[0][2]
        if drops:
            self._count_drops(int.from_bytes(drops[:4], sys.byteorder))
        if batch:
            self._refused = False
            self.sink.messages(batch)
        else:
            # An error has woken the event loop. libuv stops watching such a socket, so it is
            # registered again.
            self.pause()
            self.resume()

    def _count_drops(self, total: int) -> None:
        """Count the datagrams that the kernel threw away since the last call. Its counter has 32
        bits.
        """
        new = (total - self._kernel_drops) & 0xFFFFFFFF
        if new:
            self._kernel_drops = total
            self.sink.dropped(new)

    def _note(self, error: OSError) -> None:
        """Warn of a network error; further errors are silent until datagrams arrive again."""
        refused = error.errno == errno.ECONNREFUSED
        if not self._refused:
            self._refused = True
            text = (
                "nobody listens there (ICMP refused)" if refused else error.strerror or str(error)
            )
            self.sink.warn(f"udp {self.peer}: {text}")

    async def _writable(self, sock: socket.socket, deadline: Deadline) -> bool:
        """Wait until the kernel takes a datagram; False when the deadline came first."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(sock.fileno(), ready.set)
        try:
            async with asyncio.timeout(deadline.timeout()):
                await ready.wait()
        except TimeoutError:
            return False
        finally:
            if sock.fileno() >= 0:
                loop.remove_writer(sock.fileno())
        return True


def _refused(error: OSError, size: int, family: int, peer: str) -> RefusedError:
    """Return why the kernel did not send a datagram of `size` bytes."""
    if error.errno == errno.EMSGSIZE:
        most = 65_527 if family == socket.AF_INET6 else 65_507
        limit = (
            f"udp takes {most:,} at most" if size > most else "the network on the way takes less"
        )
        text = f"a datagram of {size:,} bytes to {peer} is too big ({limit})"
    else:
        text = f"a datagram to {peer} was refused by this machine ({error.strerror or error})"
    return RefusedError(f"{text}: it was not sent", code=error.errno)

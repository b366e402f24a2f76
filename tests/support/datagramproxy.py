"""A UDP proxy that injects faults between clients and a server: the datagrams' `FaultProxy`.

Each client has a socket of its own towards the server, as behind a router that translates addresses. `cut`
and `reset` forget these sockets, as such a router does when it starts again: the server sees a new client.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from typing import Literal

__all__ = ["DatagramProxy"]

Way = Literal["up", "down"]
_LARGEST = 65536
_TICK_S = 0.005


class DatagramProxy:
    """A proxy on `127.0.0.1:<port>` to `target`, a port of 127.0.0.1. One thread; `close` ends it."""

    def __init__(self, target: int) -> None:
        self.target = ("127.0.0.1", target)
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        self.port: int = self._sock.getsockname()[1]
        self._lock = threading.Lock()
        self._links: dict[tuple[str, int], socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._sock, selectors.EVENT_READ, None)
        self._holes: set[Way] = set()
        self.swallowed = 0
        """How many datagrams a black hole has taken."""
        self._stalled = False
        self._latency_s = 0.0
        self._held: deque[tuple[float, socket.socket, bytes, tuple[str, int] | None]] = deque()
        self._ending = False
        self._thread = threading.Thread(
            target=self._run, name=f"datagramproxy-{self.port}", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Forget who the clients are: what the server still sends to them is refused."""
        with self._lock:
            for sock in self._links.values():
                self._selector.unregister(sock)
                sock.close()
            self._links.clear()
            self._held.clear()

    reset = cut

    def blackhole(self, way: Way | None = None) -> None:
        """Swallow the datagrams of one way or of both."""
        with self._lock:
            self._holes |= {way} if way else {"up", "down"}

    def stall(self) -> None:
        """Hold every datagram back."""
        self._stalled = True

    def slow(self, *, latency_s: float, bytes_per_s: float | None = None) -> None:
        """Hold each datagram back for `latency_s`. A bandwidth is a stream's matter."""
        self._latency_s = latency_s

    def heal(self) -> None:
        """Pass everything again."""
        with self._lock:
            self._holes.clear()
            self._stalled, self._latency_s = False, 0.0

    def close(self) -> None:
        """End the thread and close every socket. Idempotent."""
        if not self._ending:
            self._ending = True
            self._thread.join(10)
            self.cut()
            self._selector.close()
            self._sock.close()

    stop = close

    # the thread

    def _run(self) -> None:
        while not self._ending:
            ready = self._selector.select(_TICK_S)
            with self._lock, contextlib.suppress(OSError):
                for key, _ in ready:
                    if key.data is None:
                        self._take_up()
                    elif key.data in self._links:
                        self._take_down(key.data)
                self._pass_on()

    def _take_up(self) -> None:
        data, client = self._sock.recvfrom(_LARGEST)
        if client not in self._links:
            link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            link.connect(self.target)
            self._links[client] = link
            self._selector.register(link, selectors.EVENT_READ, client)
        self._hold("up", self._links[client], data, None)

    def _take_down(self, client: tuple[str, int]) -> None:
        data = self._links[client].recv(_LARGEST)
        self._hold("down", self._sock, data, client)

    def _hold(
        self, way: Way, sock: socket.socket, data: bytes, client: tuple[str, int] | None
    ) -> None:
        if way in self._holes:
            self.swallowed += 1
        else:
            self._held.append((time.monotonic() + self._latency_s, sock, data, client))

    def _pass_on(self) -> None:
        now = time.monotonic()
        while self._held and not self._stalled and self._held[0][0] <= now:
            _, sock, data, client = self._held.popleft()
            with contextlib.suppress(OSError):  # the one end or the other has gone
                if client is None:
                    sock.send(data)
                else:
                    sock.sendto(data, client)

"""Small real socket servers for tests: tcp, tls, unix and udp, each on a port of its own choice.

A stream server runs a *handler* in a thread for each connection; a handler is the script of one peer:

    def greeter(peer: Peer) -> None:
        peer.send(b"hello\\n")
        peer.read_until(b"\\n")
        peer.reset()

    with SocketServer(greeter) as server:
        conn = Dial(server.url)

`echo` and `deaf` are handlers too. A handler that fails with anything but a lost connection fails the
test when the server is closed.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from trunkline.deadline import Deadline

__all__ = [
    "Handler",
    "Peer",
    "SocketServer",
    "UdpServer",
    "deaf",
    "echo",
    "free_port",
    "say",
    "unused_port",
]

_JOIN_S = 10.0


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 that was free a moment ago; for servers that cannot take port 0."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def unused_port() -> Iterator[int]:
    """A port of 127.0.0.1 that refuses connections and that nobody else gets meanwhile."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, number: int, stopping: threading.Event) -> None:
        self.sock = sock
        self.number = number
        """0 for the server's first connection, 1 for the next."""
        self.stopping = stopping
        self.received = b""
        """All bytes read so far."""
        self._unread = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self, most: int = 65536) -> bytes:
        """What is there, at least one byte; b"" when the client has ended its side."""
        if not self._unread:
            self._fill(most)
        data, self._unread = self._unread[:most], self._unread[most:]
        return data

    def read_exactly(self, count: int) -> bytes:
        while len(self._unread) < count:
            self._must_fill()
        data, self._unread = self._unread[:count], self._unread[count:]
        return data

    def read_until(self, mark: bytes) -> bytes:
        """All up to the mark and with it; EOFError when the client ends before."""
        while mark not in self._unread:
            self._must_fill()
        end = self._unread.index(mark) + len(mark)
        data, self._unread = self._unread[:end], self._unread[end:]
        return data

    def close(self) -> None:
        """End in good order (FIN)."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def reset(self) -> None:
        """Break the connection (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _fill(self, most: int = 65536) -> bool:
        data = self.sock.recv(most)
        self._unread += data
        self.received += data
        return bool(data)

    def _must_fill(self) -> None:
        if not self._fill():
            raise EOFError(f"the client ended; unread: {self._unread[:80]!r}")


Handler = Callable[[Peer], None]


def echo(peer: Peer) -> None:
    """Send everything back until the client ends."""
    while data := peer.read():
        peer.send(data)


def deaf(peer: Peer) -> None:
    """Accept, and never read or answer."""
    peer.stopping.wait()


def say(*pieces: bytes) -> Handler:
    """A handler that sends the pieces, then reads until the client ends."""

    def handler(peer: Peer) -> None:
        for piece in pieces:
            peer.send(piece)
        while peer.read():
            pass

    return handler


class SocketServer:
    """A stream server on `127.0.0.1:<port>`, or at a unix socket's `path`; with `tls` it speaks TLS."""

    def __init__(
        self,
        handler: Handler = echo,
        *,
        path: Path | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.handler = handler
        self.path = path
        self.tls = tls
        self.peers: list[Peer] = []
        self.failures: list[BaseException] = []
        self._news = threading.Condition()
        self._stopping = threading.Event()
        self._listener = self._listen()
        self.port: int = 0 if path else self._listener.getsockname()[1]
        self._wake_in, self._wake_out = socket.socketpair()
        self._threads = [threading.Thread(target=self._accept, name=f"server {self}", daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        """The address a `Dial` takes."""
        if self.path:
            return f"unix://{self.path}"
        return f"{'tls' if self.tls else 'tcp'}://127.0.0.1:{self.port}"

    def wait_peers(self, count: int, timeout: float = 10.0) -> list[Peer]:
        """Wait until `count` connections were made (and TLS agreed on); the connections."""
        with self._news:
            if not self._news.wait_for(lambda: len(self.peers) >= count, timeout):
                raise AssertionError(
                    f"{len(self.peers)} of {count} connections in {timeout} s: {self}"
                )
            return list(self.peers)

    def wait_received(self, data: bytes, peer: int = 0, timeout: float = 10.0) -> None:
        """Wait until the handler of that connection has read something that holds `data`."""
        deadline = Deadline(timeout)
        self.wait_peers(peer + 1, timeout)
        while data not in self.peers[peer].received:
            if deadline.expired():
                raise AssertionError(
                    f"{data!r} did not arrive, but {self.peers[peer].received[-200:]!r}"
                )
            with self._news:
                self._news.wait(0.02)

    def drop(self) -> None:
        """Close all connections there are; the server goes on."""
        for peer in list(self.peers):
            peer.close()

    def close(self) -> None:
        """Close everything and wait for the threads. Raises what a handler raised."""
        self._stopping.set()
        self._wake_out.close()
        for peer in list(self.peers):
            # Only shut down here: the thread that uses the descriptor closes it.
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_JOIN_S)
        if self.path:
            self.path.unlink(missing_ok=True)
        if self.failures:
            raise self.failures[0]

    def __enter__(self) -> SocketServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __str__(self) -> str:
        return self.url

    def _listen(self) -> socket.socket:
        if self.path:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(self.path))
        else:
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        return listener

    def _accept(self) -> None:
        with self._listener, self._wake_in, selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake_in, selectors.EVENT_READ)
            while not self._stopping.is_set():
                if any(key.fileobj is self._listener for key, _ in selector.select()):
                    self._start(self._listener.accept()[0])

    def _start(self, sock: socket.socket) -> None:
        thread = threading.Thread(
            target=self._run, args=(sock,), name=f"peer of {self}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _run(self, sock: socket.socket) -> None:
        try:
            if self.tls:
                sock = self._agree(sock)
            with sock:
                self.handler(self._enter(sock))
        except (OSError, EOFError):
            pass  # the client left, or we closed: the test looks at what it received
        except BaseException as error:
            self.failures.append(error)

    def _agree(self, sock: socket.socket) -> ssl.SSLSocket:
        assert self.tls
        try:
            sock.settimeout(_JOIN_S / 2)
            agreed = self.tls.wrap_socket(sock, server_side=True)
            agreed.settimeout(None)
            return agreed
        except OSError:
            sock.close()
            raise

    def _enter(self, sock: socket.socket) -> Peer:
        with self._news:
            peer = Peer(sock, len(self.peers), self._stopping)
            self.peers.append(peer)
            self._news.notify_all()
        if self._stopping.is_set():
            raise EOFError
        return peer


class UdpServer:
    """Answers each datagram with `answer(datagram)`: the datagrams to send, by default the same one."""

    def __init__(self, answer: Callable[[bytes], list[bytes]] = lambda data: [data]) -> None:
        self.answer = answer
        self.received: list[bytes] = []
        self._peer: tuple[str, int] | None = None
        self._news = threading.Condition()
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        self.port: int = self._sock.getsockname()[1]
        self._wake_in, self._wake_out = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name=f"server {self.url}", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"udp://127.0.0.1:{self.port}"

    def wait_received(self, count: int, timeout: float = 10.0) -> list[bytes]:
        """Wait until `count` datagrams came in all; the datagrams."""
        with self._news:
            if not self._news.wait_for(lambda: len(self.received) >= count, timeout):
                raise AssertionError(f"{len(self.received)} of {count} datagrams in {timeout} s")
            return list(self.received)

    def send(self, data: bytes) -> None:
        """Send a datagram to whoever sent the last one."""
        assert self._peer, "no datagram has come yet, so nobody is known to send to"
        self._sock.sendto(data, self._peer)

    def close(self) -> None:
        self._wake_out.close()
        self._thread.join(_JOIN_S)

    def __enter__(self) -> UdpServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self) -> None:
        with self._sock, self._wake_in, selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            selector.register(self._wake_in, selectors.EVENT_READ)
            while not any(key.fileobj is self._wake_in for key, _ in selector.select()):
                self._take()

    def _take(self) -> None:
        data, self._peer = self._sock.recvfrom(65536)
        with self._news:
            self.received.append(data)
            self._news.notify_all()
        for datagram in self.answer(data):
            self._sock.sendto(datagram, self._peer)

"""A TCP proxy that injects faults between a client and a server.

    with FaultProxy(server.port) as proxy:
        conn = Dial(f"tcp://127.0.0.1:{proxy.port}")
        proxy.blackhole("down")      # the server's bytes vanish, the link stays
        ...
        proxy.heal()                 # everything passes again

Faults for new connections: `refuse`, `deaf`.
Faults for the present links: `cut` (FIN), `reset` (RST).
Faults for the bytes of all links, old and new: `blackhole`, `stall`, `slow`, `slice`, `cut_after`.
A byte fault holds for a way: "up" is client to server, "down" is server to client.
`heal` undoes the faults for new connections and for bytes. Every call returns after its effect.

A proxy is a single thread with its own asyncio loop; `stop` ends the thread and closes every
socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from trunkline.testing.loopthread import LoopThread, News

__all__ = ["FaultProxy", "Way"]

Way = Literal["up", "down"]

_CHUNK = 65536
"""The most bytes that the proxy reads at once."""


@dataclass(frozen=True)
class _Faults:
    """The faults of one way.

    `latency_s` is in seconds, `slice_to` and `budget` in bytes; None means without a limit.
    """

    swallow: bool = False
    stall: bool = False
    latency_s: float = 0.0
    bytes_per_s: float | None = None
    slice_to: int | None = None
    budget: int | None = None

    def chunk(self) -> int:
        """The number of bytes to pass at once.

        A chunk lasts at most 50 ms, so that a change takes effect soon.
        """
        if self.bytes_per_s is None:
            return _CHUNK
        return max(1, min(_CHUNK, int(self.bytes_per_s / 20)))


class _Link:
    """A client connection, and the server connection behind it unless the link is deaf."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server: socket.socket | None = None
        self.task: asyncio.Task[None] | None = None
        # The bytes that may still pass in each way before the link is cut; None: no limit.
        self.left: dict[Way, int | None] = {"up": None, "down": None}

    def sockets(self) -> list[socket.socket]:
        return [self.client] if self.server is None else [self.client, self.server]

    def close(self, *, reset: bool) -> None:
        """Close the sockets: by RST (an SO_LINGER time of 0) or in good order."""
        for sock in self.sockets():
            if reset:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                _finish(sock)
            sock.close()


def _finish(sock: socket.socket) -> None:
    """Send FIN. Unread bytes in the kernel would turn the close into an RST, so the proxy reads
    them first."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(_CHUNK):
            pass


class FaultProxy:
    """A proxy on `127.0.0.1:<port>` to `target`.

    `target` is a port of 127.0.0.1, or a host and a port. With `at`, both ends are Unix sockets:
    the proxy listens at the path `at`, and `target` is a path. `seed` seeds the random sizes of
    `slice`.
    """

    def __init__(
        self, target: int | tuple[str, int] | Path, *, at: Path | None = None, seed: int = 0
    ) -> None:
        self.target = ("127.0.0.1", target) if isinstance(target, int) else target
        self._at = at
        self._random = random.Random(seed)
        self._faults: dict[Way, _Faults] = {"up": _Faults(), "down": _Faults()}
        self._deaf = False
        self._links: set[_Link] = set()
        self._connections = 0
        self._taken: dict[Way, int] = {"up": 0, "down": 0}
        self._news = News()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        # The keeper is bound and never listens. Its socket reserves the port while the listener is
        # closed (`refuse`).
        self._keeper = _bind(0)
        self.port: int = self._keeper.getsockname()[1]
        """Meaningless with `at`."""
        self._changed = asyncio.Event()
        self._thread = LoopThread(f"faultproxy-{self.port}")
        self._loop = self._thread.loop
        self._do = self._thread.run
        try:
            self._do(self._listen)
        except BaseException:
            self._thread.stop()
            self._keeper.close()
            raise

    # Looking at the proxy.

    @property
    def address(self) -> str:
        return str(self._at or f"127.0.0.1:{self.port}")

    @property
    def connections(self) -> int:
        """The number of connections accepted since the start, including deaf connections."""
        return self._connections

    @property
    def live(self) -> int:
        """The number of present links."""
        return len(self._links)

    def taken(self, way: Way) -> int:
        """The number of bytes taken from the sender of that way, including swallowed bytes."""
        return self._taken[way]

    def wait_connections(self, count: int, timeout: float = 10.0) -> None:
        """Wait until `count` connections were accepted in total; AssertionError after `timeout`
        seconds."""
        self._wait(lambda: self._connections >= count, f"{count} connections", timeout)

    def wait_live(self, count: int, timeout: float = 10.0) -> None:
        """Wait until exactly `count` links exist; AssertionError after `timeout` seconds."""
        self._wait(lambda: len(self._links) == count, f"{count} live links", timeout)

    def wait_taken(self, way: Way, count: int, timeout: float = 10.0) -> None:
        """Wait until `count` bytes were taken from the sender of that way; AssertionError after
        `timeout` seconds."""
        self._wait(lambda: self._taken[way] >= count, f"{count} bytes {way}", timeout)

    # Faults for new connections

    def refuse(self) -> None:
        """Refuse new connections (ECONNREFUSED). The present links stay."""
        self._do(self._unlisten)

    def deaf(self) -> None:
        """Accept new connections, but never read from them or write to them.

        Such links stay deaf after `heal`.
        """
        self._deaf = True
        self._do(self._listen)

    # Faults for the links there are

    def cut(self) -> None:
        """End every link in good order (FIN), as a server that exits does."""
        self._do(lambda: self._end_all(reset=False))

    def reset(self) -> None:
        """Break every link (RST), as a host does that has lost its memory."""
        self._do(lambda: self._end_all(reset=True))

    # Faults for bytes

    def blackhole(self, way: Way | None = None) -> None:
        """Swallow the bytes of `way`, or of both ways.

        The link stays, and the sender notices nothing.
        """
        self._change(way, swallow=True)

    def stall(self, way: Way | None = None) -> None:
        """Stop taking bytes of `way`, or of both ways: the sender's buffers fill up, and no byte is
        lost."""
        self._change(way, stall=True)

    def slow(
        self, way: Way | None = None, *, latency_s: float = 0.0, bytes_per_s: float | None = None
    ) -> None:
        """Hold every piece back for `latency_s` seconds, and pass at most `bytes_per_s` bytes a
        second."""
        self._change(way, latency_s=latency_s, bytes_per_s=bytes_per_s)

    def slice(self, most: int, way: Way | None = None) -> None:
        """Pass the bytes in segments of 1 to `most` bytes.

        The sizes are random, by the proxy's seed.
        """
        self._change(way, slice_to=most)

    def cut_after(self, count: int, way: Way) -> None:
        """End a link (FIN) after `count` more bytes of that way have passed on the link.

        Links made later are cut after `count` bytes too, until `heal`.
        """
        self._do(lambda: self._set_budget(way, count))

    def heal(self) -> None:
        """Accept and pass everything again. Swallowed bytes stay lost, deaf links stay deaf."""
        self._deaf = False
        self._do(self._heal)

    # Life

    def stop(self) -> None:
        """Break all links, close the port and end the thread. Idempotent."""
        if self._thread.is_stopped:
            return
        self._do(self._shut_down)
        self._thread.stop()
        self._keeper.close()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"FaultProxy({self.address} -> {self.target}, {self.live} live)"

    # From here on every method except `_wait` and `_change` runs on the proxy's thread.

    def _wait(self, happened: Callable[[], bool], what: str, timeout: float) -> None:
        """Wait until `happened()` is true, on the caller's thread.

        AssertionError describes the proxy's state.
        """
        self._news.wait(
            happened,
            timeout,
            lambda: (
                f"no {what} in {timeout} s: {self!r}, {self._connections} connections, {self._taken}"
            ),
        )

    def _change(self, way: Way | None, **faults: Any) -> None:
        """Change the faults of a way, or of both ways. Every pump sees the change at once."""

        async def change() -> None:
            for each in self._faults if way is None else (way,):
                self._faults[each] = replace(self._faults[each], **faults)
            self._wake()

        self._do(change)

    def _wake(self) -> None:
        """Make every pump look at the faults again: waiting pumps hold the old event, later waits
        use the new event."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _set_budget(self, way: Way, count: int) -> None:
        self._faults[way] = replace(self._faults[way], budget=count)
        for link in self._links:
            link.left[way] = count

    async def _heal(self) -> None:
        """Remove the faults of both ways and the budgets of all links, then listen again."""
        for way in self._faults:
            self._faults[way] = _Faults()
            for link in self._links:
                link.left[way] = None
        self._wake()
        await self._listen()

    async def _listen(self) -> None:
        """Open the listener and accept connections. Does nothing if the listener is open."""
        if self._listener is None:
            self._listener = _bind_path(self._at) if self._at else _bind(self.port)
            self._listener.listen(512)
            self._accepting = asyncio.create_task(self._accept(self._listener))

    async def _unlisten(self) -> None:
        """Close the listener. The keeper still holds the port, so that no other program gets it."""
        if self._listener is not None and self._accepting is not None:
            await _cancel(self._accepting)
            self._listener.close()
            self._listener = None

    async def _accept(self, listener: socket.socket) -> None:
        """Accept connections until the listener is closed. A link's task begins at once."""
        while True:
            client, _ = await self._loop.sock_accept(listener)
            link = _Link(client)
            self._links.add(link)
            self._connections += 1
            link.task = asyncio.create_task(_forever() if self._deaf else self._serve(link))
            self._news.tell()

    async def _end_all(self, *, reset: bool) -> None:
        for link in list(self._links):
            await self._end(link, reset=reset)

    async def _end(self, link: _Link, *, reset: bool) -> None:
        """Close a link. A caller outside the link's task cancels the task; the task itself just
        goes on to its end."""
        if link not in self._links:
            return
        self._links.discard(link)
        if link.task is not None and link.task is not asyncio.current_task():
            await _cancel(link.task)
        link.close(reset=reset)
        self._news.tell()

    async def _shut_down(self) -> None:
        await self._unlisten()
        await self._end_all(reset=True)

    async def _serve(self, link: _Link) -> None:
        """A budget that is used up (`_Cut`) ends the link by FIN, a socket error by RST."""
        reset = False
        try:
            await self._connect(link)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(link, "up"))
                pumps.create_task(self._pump(link, "down"))
        except* _Cut:
            pass
        except* OSError:
            reset = True
        await self._end(link, reset=reset)

    async def _connect(self, link: _Link) -> None:
        """Connect to the target. Raises OSError, which breaks the client's link by RST."""
        target = self.target
        if isinstance(target, Path):
            link.server = socket.socket(socket.AF_UNIX)
        else:
            link.server = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET)
        for sock in link.sockets():
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await self._loop.sock_connect(
            link.server, str(target) if isinstance(target, Path) else target
        )
        link.left = {way: faults.budget for way, faults in self._faults.items()}

    async def _pump(self, link: _Link, way: Way) -> None:
        """Pass the bytes of one way until end of file, then pass the end of file as well."""
        assert link.server is not None
        ends = (link.client, link.server)
        source, sink = ends if way == "up" else ends[::-1]
        while True:
            while self._faults[way].stall:
                await self._changed.wait()
            data = await self._loop.sock_recv(source, _CHUNK)
            if not data:
                break
            self._taken[way] += len(data)
            self._news.tell()
            await self._pass(link, way, sink, data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    async def _pass(self, link: _Link, way: Way, sink: socket.socket, data: bytes) -> None:
        """Pass the data in segments, under the present faults.

        Raises `_Cut` when the budget is used up.
        """
        while data:
            piece = data[: self._segment(link, way)]
            data = data[len(piece) :]
            await self._hold_back(way, len(piece))
            if self._faults[way].swallow:
                return
            await self._loop.sock_sendall(sink, piece)
            left = link.left[way]
            if left is not None:
                link.left[way] = left - len(piece)
                if left <= len(piece):
                    raise _Cut

    def _segment(self, link: _Link, way: Way) -> int:
        """The size of the next segment: at most a chunk, a random slice, and the link's budget."""
        faults = self._faults[way]
        size = (
            faults.chunk() if faults.slice_to is None else self._random.randint(1, faults.slice_to)
        )
        left = link.left[way]
        return size if left is None else min(size, left)

    async def _hold_back(self, way: Way, size: int) -> None:
        """A change of faults ends the wait for latency early; a stall then holds until the next
        change."""
        faults = self._faults[way]
        wait_s = faults.latency_s + (size / faults.bytes_per_s if faults.bytes_per_s else 0.0)
        if wait_s:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait_s)
        while self._faults[way].stall:
            await self._changed.wait()


class _Cut(Exception):
    """A link's byte budget is used up."""


def _bind(port: int) -> socket.socket:
    """A socket bound to a port of 127.0.0.1; port 0: any free port."""
    sock = socket.socket()
    # Two sockets of the proxy share the port: the keeper and the listener.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Links of the former listener may linger in TIME_WAIT.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", port))
    return sock


def _bind_path(path: Path) -> socket.socket:
    """A Unix socket bound to a path. An old socket file at the path is removed."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    sock.bind(str(path))
    return sock


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _forever() -> None:
    """The task of a deaf link: it never reads and never writes."""
    await asyncio.Event().wait()

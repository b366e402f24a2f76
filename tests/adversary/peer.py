"""The other end of a stream under trial: `python -m tests.adversary.peer KIND WHERE FOLDER RATE SIZE`.

WHERE is a port, or for unix a path. To each client it sends `<LINK NUMBER>`, the link's number and 1,
2, 3 and so on, at RATE a second (padded to SIZE bytes), until it gets SIGUSR1. What it is sent it
writes down. On a byte stream a message is a line. Notes, in FOLDER/peer.jsonl, with `time.monotonic` of
the machine:

    ["link", LINK, time]    ["sent", LINK, NUMBER]    ["got", LINK, text, time]    ["gone", LINK, time]
    ["ready"]               ["quiet"]: nothing more will be sent

A peer that is started again in the folder counts on, so that a link's number is never used twice.
"""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.adversary.notes import Notes, read_notes

_TICK_S = 0.01
_IDLE_S = 1.0
"""A udp client that has said nothing for so long has gone."""


class Peer:
    def __init__(self, folder: Path, rate: float, size: int) -> None:
        path = folder / "peer.jsonl"
        self.links = sum(note[0] == "link" for note in read_notes(path))
        self.note = Notes(path)
        self.quiet = False
        self._rate, self._padding = rate, "x" * size

    def begin(self) -> int:
        self.links += 1
        self.note("link", self.links, time.monotonic())
        return self.links

    def got(self, link: int, text: str) -> None:
        self.note("got", link, text, time.monotonic())

    def gone(self, link: int) -> None:
        self.note("gone", link, time.monotonic())

    def hush(self) -> None:
        self.quiet = True
        self.note("quiet")

    async def feed(self, link: int, send: Callable[[str], Awaitable[None]]) -> None:
        """Send numbers as they fall due, until it is quiet."""
        number, began = 0, time.monotonic()
        while not self.quiet:
            due = 1 + int((time.monotonic() - began) * self._rate)
            while number < due and not self.quiet:
                number += 1
                self.note("sent", link, number)
                await send(f"<{link} {number}>{self._padding}")
            await asyncio.sleep(_TICK_S)

    # kinds

    async def over_lines(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = self.begin()

        async def send(text: str) -> None:
            writer.write(text.encode() + b"\n")
            await writer.drain()

        feeding = asyncio.create_task(self.feed(link, send))
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                self.got(link, (await reader.readuntil(b"\n")).decode().rstrip("\n"))
        await self._end(feeding, link)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def over_websocket(self, ws: ServerConnection) -> None:
        link = self.begin()
        feeding = asyncio.create_task(self.feed(link, ws.send))
        with suppress(ConnectionClosed):
            async for message in ws:
                self.got(link, str(message))
        await self._end(feeding, link)

    async def _end(self, feeding: asyncio.Task[None], link: int) -> None:
        feeding.cancel()
        with suppress(asyncio.CancelledError, OSError, ConnectionClosed):
            await feeding
        self.gone(link)


class Datagrams(asyncio.DatagramProtocol):
    """Each address that speaks is a link for as long as it goes on speaking."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.known: dict[object, tuple[int, asyncio.Task[None], float]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)  # uvloop has another class

    def datagram_received(self, data: bytes, addr: object) -> None:
        if addr not in self.known:
            link = self.peer.begin()

            async def send(text: str) -> None:
                if time.monotonic() - self.known[addr][2] < _IDLE_S:
                    self.transport.sendto(text.encode(), addr)  # type: ignore[arg-type]

            self.known[addr] = (
                link,
                asyncio.create_task(self.peer.feed(link, send)),
                time.monotonic(),
            )
        link, task, _ = self.known[addr]
        self.known[addr] = (link, task, time.monotonic())
        self.peer.got(link, data.decode())


async def main(kind: str, where: str, folder: Path, rate: float, size: int) -> None:
    peer = Peer(folder, rate, size)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, peer.hush)
    if kind == "ws":
        await serve(
            peer.over_websocket, "127.0.0.1", int(where), compression=None, ping_interval=None
        )
    elif kind == "udp":
        await loop.create_datagram_endpoint(
            lambda: Datagrams(peer), local_addr=("127.0.0.1", int(where))
        )
    elif kind == "unix":
        with suppress(FileNotFoundError):
            os.unlink(where)
        await asyncio.start_unix_server(peer.over_lines, where)
    else:
        context = None
        if kind == "tls":
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(folder / "server.pem", folder / "server.key")
        await asyncio.start_server(peer.over_lines, "127.0.0.1", int(where), ssl=context)
    peer.note("ready")
    await asyncio.Event().wait()


if __name__ == "__main__":
    _, kind, where, folder, rate, size = sys.argv
    asyncio.run(main(kind, where, Path(folder), float(rate), int(size)))

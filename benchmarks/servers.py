"""The benchmarks' own server, in another process: the server must not be measured.

The server implements a minimum of WebSocket: the handshake, then by path `/feed/N/SIZE` (N numbered
text messages as fast as the socket takes them, after the client's first byte), `/echo` and `/idle`.
The frames of the feed are built beforehand and sent in large pieces.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import multiprocessing
import struct
from collections.abc import Iterator

__all__ = ["serving"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def _frame(payload: bytes) -> bytes:
    size = len(payload)
    head = struct.pack("!BB", 0x81, size) if size < 126 else struct.pack("!BBH", 0x81, 126, size)
    return head + payload


def _feed(count: int, size: int) -> Iterator[bytes]:
    """The feed in pieces of 500 messages `{"seq": n, "pad": "..."}`, padded to `size` bytes."""
    pieces: list[bytes] = []
    for seq in range(count):
        text = b'{"seq":%d,"pad":"' % seq
        pieces.append(_frame(text + b"x" * (size - len(text) - 2) + b'"}'))
        if len(pieces) == 500:
            yield b"".join(pieces)
            pieces.clear()
    yield b"".join(pieces)


async def _read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """A client's frame: its opcode and its unmasked data."""
    first, second = await reader.readexactly(2)
    size = second & 127
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
    mask = await reader.readexactly(4)
    data = bytearray(await reader.readexactly(size))
    for index in range(size):
        data[index] ^= mask[index & 3]
    return first & 15, bytes(data)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve a client until its close frame."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        request = await reader.readuntil(b"\r\n\r\n")
        path = request.split(b" ", 2)[1].decode()
        headers = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:] if b": " in line)
        key = next(value for name, value in headers.items() if name.lower() == b"sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        if path.startswith("/feed"):
            _, _, count, size = path.split("/")
            pieces = list(_feed(int(count), int(size)))
            await _read_frame(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        while True:
            opcode, data = await _read_frame(reader)
            if opcode == 8:
                break
            if opcode in (1, 2):
                writer.write(_frame(data))
            elif opcode == 9:
                writer.write(b"\x8a" + bytes([len(data)]) + data)
    writer.close()


def _main(ports: multiprocessing.Queue[int]) -> None:
    async def run() -> None:
        server = await asyncio.start_server(_serve, "127.0.0.1", 0, backlog=512)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())


@contextlib.contextmanager
def serving() -> Iterator[int]:
    """A server process; yields its port."""
    ports: multiprocessing.Queue[int] = multiprocessing.Queue()
    process = multiprocessing.Process(target=_main, args=(ports,), daemon=True)
    process.start()
    try:
        yield ports.get(timeout=20)
    finally:
        process.terminate()
        process.join(5)

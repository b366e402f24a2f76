"""Damaged NATS messages: from a publisher, and from a proxy between a client and a real server."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator

from tests.support.sockets import Handler, Peer

__all__ = ["HEADER_BLOCKS", "RawNats", "mutated", "with_damaged_headers"]

HEADER_BLOCKS = (
    b"",
    b"N",
    b"NATS/1.0",
    b"NATS/1.0\r\n",
    b"NATS/1.0\r\n\r\n",
    b"NATS/1.0 ",
    b"NATS/1.0 \xff\xff\xff\r\n\r\n",
    b"NATS/1.0 503 \xc3\r\n\r\n",
    b"NATS/1.0 404\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\n\xff\xfe: a\r\n\r\n",
    b"NATS/1.0\r\nname: \xff\xfe\r\n\r\n",
    b"NATS/1.0\r\n: nameless\r\n\r\n",
    b"\x00" * 40,
    b"not a header at all",
)
_HMSG = re.compile(rb"HMSG [^\r\n]* (\d+) (\d+)\r\n")
_MSG = re.compile(rb"MSG [^\r\n]* (\d+)\r\n")


def mutated(block: bytes, chance: random.Random) -> bytes:
    """The block with up to four bytes replaced, of the same length."""
    changed = bytearray(block)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(len(changed))] = chance.choice(
            (0, 9, 10, 13, 32, 58, 255, 195, 65, 52)
        )
    return bytes(changed)


class RawNats:
    """A publisher that says what it likes."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._lines = self._sock.makefile("rb")
        self._lines.readline()  # INFO
        self._sock.sendall(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')
        self.flush()

    def publish(self, subject: str | bytes, payload: bytes, headers: bytes | None = None) -> None:
        name = subject.encode() if isinstance(subject, str) else subject
        if headers is None:
            self._sock.sendall(b"PUB %b %d\r\n%b\r\n" % (name, len(payload), payload))
        else:
            sizes = (name, len(headers), len(headers) + len(payload), headers, payload)
            self._sock.sendall(b"HPUB %b %d %d\r\n%b%b\r\n" % sizes)

    def flush(self) -> None:
        """The server has taken all of it."""
        self._sock.sendall(b"PING\r\n")
        while (line := self._lines.readline()) != b"PONG\r\n":
            assert line.startswith((b"PING", b"INFO")), line

    def close(self) -> None:
        self._lines.close()
        self._sock.close()

    def __enter__(self) -> RawNats:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def with_damaged_headers(port: int, damage: Callable[[bytes], bytes]) -> Handler:
    """A handler for SocketServer: a proxy to the server, which changes each header block on its way here."""

    def handler(peer: Peer) -> None:
        with socket.create_connection(("127.0.0.1", port)) as server:

            def up() -> None:
                with contextlib.suppress(OSError):
                    while data := peer.read():
                        server.sendall(data)
                with contextlib.suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)

            thread = threading.Thread(target=up)
            thread.start()
            with contextlib.suppress(OSError):
                for piece in _pieces(server, damage):
                    peer.send(piece)
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
            thread.join(10)

    return handler


def _pieces(server: socket.socket, damage: Callable[[bytes], bytes]) -> Iterator[bytes]:
    with server.makefile("rb") as stream:
        while line := stream.readline():
            if found := _HMSG.fullmatch(line):
                headers, whole = int(found[1]), int(found[2])
                body = stream.read(whole + 2)
                yield line + damage(body[:headers]) + body[headers:]
            elif found := _MSG.fullmatch(line):
                yield line + stream.read(int(found[1]) + 2)
            else:
                yield line

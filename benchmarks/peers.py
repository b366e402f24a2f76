"""What Trunkline is measured against, used the way its own users would use it."""

from __future__ import annotations

import io
import socket
import sqlite3
from multiprocessing.managers import BaseManager
from typing import Any

import websocket

__all__ = ["Manager", "Sqlite", "plain_client", "tuned_client"]


def plain_client(url: str) -> websocket.WebSocket:
    """websocket-client as it comes."""
    return websocket.create_connection(url, timeout=60)


class _Buffered:
    """A socket with a read buffer, which websocket-client has not: it reads each frame's head by itself."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = io.BufferedReader(socket.SocketIO(sock, "r"), 1 << 18)

    def recv(self, size: int) -> bytes:
        return self._reader.read1(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def tuned_client(url: str) -> websocket.WebSocket:
    """websocket-client with all that its users can turn: no UTF-8 check, wsaccel where installed (it is
    picked up by itself), and a read buffer under it."""
    client = websocket.WebSocket(skip_utf8_validation=True, enable_multithread=False)
    client.connect(url, timeout=60)
    client.sock.settimeout(None)
    client.sock = _Buffered(client.sock)
    return client


class Sqlite:
    """A database behind multiprocessing.managers: the standard library's way to share one."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)

    def exec(self, sql: str) -> list[Any]:
        return self._connection.execute(sql).fetchall()


class Manager(BaseManager):
    pass


Manager.register("Sqlite", Sqlite)

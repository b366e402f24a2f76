"""The libraries that Trunkline is measured against, used as their own users would use them."""

from __future__ import annotations

import io
import socket
import sqlite3
from multiprocessing.managers import BaseManager
from typing import Any

import websocket

__all__ = ["Manager", "Sqlite", "plain_client", "tuned_client"]


def plain_client(url: str) -> websocket.WebSocket:
    """websocket-client with its defaults."""
    return websocket.create_connection(url, timeout=60)


class _Buffered:
    """A socket with a read buffer. websocket-client has no buffer, and reads the head of every
    frame by itself."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = io.BufferedReader(socket.SocketIO(sock, "r"), 1 << 18)

    def recv(self, size: int) -> bytes:
        return self._reader.read1(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def tuned_client(url: str) -> websocket.WebSocket:
    """websocket-client, tuned by every means of its users.

    No UTF-8 check, wsaccel if installed (found automatically), and a read buffer below the client.
    """
    client = websocket.WebSocket(skip_utf8_validation=True, enable_multithread=False)
    client.connect(url, timeout=60)
    client.sock.settimeout(None)
    client.sock = _Buffered(client.sock)
    return client


class Sqlite:
    """A database behind multiprocessing.managers, the standard library's way to share an object."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)

    def exec(self, sql: str) -> list[Any]:
        return self._connection.execute(sql).fetchall()


class Manager(BaseManager):
    pass


Manager.register("Sqlite", Sqlite)

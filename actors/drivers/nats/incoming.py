"""Bytes that the server has sent and that nats-py has not read yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Incoming"]

_MOST_HELD = 1 << 20


class Incoming:
    """A queue of bytes with an end.

    The socket's protocol fills it, and nats-py's reading task empties it.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._news = asyncio.Event()
        self.has_ended = False
        """Whether the server sends nothing more, or the connection is gone."""
        self.count = 0
        """How many bytes were received in all."""

    @property
    def is_full(self) -> bool:
        """Whether more than 1 MiB is queued.

        The socket is then not read, which is back pressure on the server.
        """
        return len(self._data) > _MOST_HELD

    @property
    def is_at_end(self) -> bool:
        """Whether all was read and nothing more comes."""
        return self.has_ended and not self._data

    def add(self, data: bytes) -> None:
        self.count += len(data)
        self._data += data
        self._news.set()

    def end(self) -> None:
        """Mark the end: waiting readers get the bytes that are left."""
        self.has_ended = True
        self._news.set()

    def clear(self) -> None:
        """Throw away the bytes that were not read."""
        self._data.clear()

    async def read(self) -> bytes:
        """Wait for bytes and return all of them; empty at the end."""
        await self._wait_until(lambda: bool(self._data))
        data, self._data = bytes(self._data), bytearray()
        return data

    async def readline(self) -> bytes:
        """Return a line. The line is incomplete when it gets too long or the link ends."""
        await self._wait_until(lambda: b"\n" in self._data or self.is_full)
        end = self._data.find(b"\n") + 1 or len(self._data)
        line = bytes(self._data[:end])
        del self._data[:end]
        return line

    async def _wait_until(self, is_enough: Callable[[], bool]) -> None:
        while not is_enough() and not self.has_ended:
            self._news.clear()
            await self._news.wait()

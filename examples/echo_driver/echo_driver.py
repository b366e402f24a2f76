"""Three drivers in a distribution of their own: `echo://` and `netstring://` are read and written, `notes://`
executes statements.

`pip install .` in this folder, and `Dial` takes the three schemes. `test_echo_driver.py` proves them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.actors.driver import ExecDriver, Overflow, Result, Sink, StreamDriver
from trunkline.address import Address
from trunkline.deadline import Deadline
from trunkline.errors import StatementError

__all__ = ["EchoDriver", "NetstringDriver", "NotesDriver"]


class EchoDriver(StreamDriver):
    """`echo://name?greeting=text`: what is written comes back; "bye" ends the link."""

    schemes = ("echo",)
    overflow = Overflow.DROP_OLDEST

    def __init__(self, address: Address, sink: Sink) -> None:
        super().__init__(address, sink)
        self._is_open = False

    async def open(self, deadline: Deadline) -> None:
        self._is_open = True
        if greeting := self.address.params.get("greeting"):
            self.sink.message(greeting)

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        if not self._is_open:
            raise ConnectionError("the link is gone")
        if data == "bye":
            self._is_open = False
            self.sink.lost(None)
        else:
            self.sink.message(data)
        return len(data.encode() if isinstance(data, str) else data)

    async def close(self) -> None:
        self._is_open = False


class NetstringDriver(StreamDriver):
    """`netstring://host:port`: messages on a TCP link, each with its length before it (`5:hello,`)."""

    schemes = ("netstring",)
    overflow = Overflow.BACK_PRESSURE

    def __init__(self, address: Address, sink: Sink) -> None:
        super().__init__(address, sink)
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def open(self, deadline: Deadline) -> None:
        async with asyncio.timeout(deadline.timeout()):
            reader, self._writer = await asyncio.open_connection(self.address.host, self.address.port)
        # `drain` is to wait until the kernel has everything: nothing may stay queued for later.
        self._writer.transport.set_write_buffer_limits(high=0)
        self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        reason: Exception | None = None
        try:
            while True:
                await self._has_room.wait()
                size = await reader.readuntil(b":")
                if not size[:-1].isdigit():
                    raise ConnectionError(f"{self.peer} sent something else than netstrings")
                message = await reader.readexactly(int(size[:-1]) + 1)
                self.sink.message(message[:-1])  # without the comma
        except asyncio.IncompleteReadError as error:
            if error.partial:
                reason = error
        except (OSError, asyncio.LimitOverrunError) as error:
            reason = error
        assert self._writer is not None
        self._writer.close()
        self.sink.lost(reason)

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        payload = data.encode() if isinstance(data, str) else data
        writer = self._writer
        if writer is None or writer.is_closing():
            raise ConnectionError("the link is gone")
        try:
            async with asyncio.timeout(deadline.timeout()):
                await writer.drain()
        except TimeoutError:
            return 0  # the message before this one is still on its way
        writer.write(b"%d:%b," % (len(payload), payload))
        return len(payload)

    def pause(self) -> None:
        self._has_room.clear()

    def resume(self) -> None:
        self._has_room.set()

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._writer is not None:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._writer.drain()
            self._writer.close()


class NotesDriver(ExecDriver):
    """`notes:///name`: what is kept by `SET` (a key, a value) is found by `GET` (a key)."""

    schemes = ("notes",)

    def open(self, deadline: Deadline) -> None:
        self._notes: dict[Any, Any] = {}
        self._before: dict[Any, Any] | None = None

    def execute(self, sql: str, binds: Sequence[Any] | Mapping[str, Any]) -> Result:
        match sql.upper(), *binds:
            case "SET", key, value:
                self._notes[key] = value
                return Result(affected=1)
            case "GET", key:
                found = [[self._notes[key]]] if key in self._notes else []
                return Result(columns=["value"], values=found)
        raise StatementError("notes take SET with a key and a value, or GET with a key")

    def interrupt(self) -> None:
        """Nothing here takes long."""

    def in_transaction(self) -> bool:
        return self._before is not None

    def begin(self) -> None:
        self._before = dict(self._notes)

    def commit(self) -> None:
        self._before = None

    def rollback(self) -> None:
        if self._before is not None:
            self._notes, self._before = self._before, None

    def close(self) -> None:
        """There is nothing to close."""

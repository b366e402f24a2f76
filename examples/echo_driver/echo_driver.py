"""Two drivers in a distribution of their own: `echo://` is read and written, `notes://` executes statements.

`pip install .` in this folder, and `Dial` takes both schemes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.actors.driver import ExecDriver, Overflow, Result, Sink, StreamDriver
from trunkline.address import Address
from trunkline.deadline import Deadline
from trunkline.errors import StatementError

__all__ = ["EchoDriver", "NotesDriver"]


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

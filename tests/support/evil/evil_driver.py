"""A driver that misbehaves on purpose; the path of the address says how.

unix:///fail          raises in its constructor
unix:///hang          blocks the worker's loop in `open`
unix:///flood         sends without end
unix:///stubborn      ignores SIGTERM and never ends its `close`
unix:///segfault-3    crashes the interpreter after three messages; -0: in `open`
unix:///exit-3        ends the process after three messages
unix:///echo          does what it should
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time

from trunkline.actors.driver import Overflow, Sink, StreamDriver
from trunkline.address import Address
from trunkline.deadline import Deadline


class EvilDriver(StreamDriver):
    schemes = ("unix",)
    overflow = Overflow.DROP_OLDEST
    lost_is_none = True

    def __init__(self, address: Address, sink: Sink) -> None:
        super().__init__(address, sink)
        self.way, _, after = address.target.rpartition("/")[2].partition("-")
        self.after = int(after or 0)
        if self.way == "fail":
            raise RuntimeError("failed on purpose")

    async def open(self, deadline: Deadline) -> None:
        if self.way == "hang":
            time.sleep(3600)  # noqa: ASYNC251
        elif self.way == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif self.way in ("segfault", "exit"):
            for number in range(self.after):
                self.sink.message(str(number))
            asyncio.get_running_loop().call_later(0.1 if self.after else 0, self._die)
            if not self.after:
                await asyncio.sleep(3600)
        elif self.way == "flood":
            asyncio.get_running_loop().call_soon(self._flood)

    def _die(self) -> None:
        if self.way == "segfault":
            ctypes.string_at(0)
        os._exit(3)

    def _flood(self) -> None:
        self.sink.messages(["x" * 100] * 5000)
        asyncio.get_running_loop().call_soon(self._flood)

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        self.sink.message(data)
        return len(data)

    async def close(self) -> None:
        while self.way == "stubborn":
            time.sleep(3600)  # noqa: ASYNC251

"""The program under trial with a message broker: it reads what it writes, with the envelopes. See `program`.

Notes beside those of `Program`: ["m", generation, who, message, redelivered].
"""

from __future__ import annotations

import os
import time
from typing import Any

import trunkline
from tests.adversary.program import READ_MS, Program

__all__ = ["MessageProgram"]


class MessageProgram(Program):
    def take(self, conn: Any, generation: int, who: str, wait_ms: int) -> bool | None:
        """Whether a message came; None at a loss."""
        message = conn.receive(wait_ms)
        if isinstance(message, trunkline.Message):
            self.note("m", generation, who, message.data, message.redelivered)
            return True
        return None if message == "" else False

    def read(self, conn: Any, generation: int, who: str) -> bool:
        try:
            came = self.call("receive", READ_MS / 1000, self.take, conn, generation, who, READ_MS)
        except trunkline.TrunklineError:
            came = None
        if came is None:
            self.lost(conn, generation, who)
        return bool(came)

    def forked(self, conn: Any, generation: int) -> None:
        try:
            self.take(conn, generation, f"fork-{os.getpid()}", 100)
        except trunkline.TrunklineError:
            time.sleep(0.01)

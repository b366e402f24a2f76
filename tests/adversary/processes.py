"""Which processes of a trial there are: found by the trial's mark in their environment."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from tests.support.leaks import MARKER

__all__ = ["Found", "look"]


@dataclass(frozen=True)
class Found:
    pid: int
    parent: int
    name: str
    command: str

    @property
    def is_worker(self) -> bool:
        return self.name.startswith("trunk-")

    @property
    def is_broker(self) -> bool:
        """The broker or its zygote, which is a fork of it."""
        return not self.is_worker and "trunkline.broker" in self.command


def look(mark: str) -> list[Found]:
    """All living processes (no zombies) that have the mark."""
    wanted = f"{MARKER}={mark}".encode()
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        at = Path("/proc") / name
        with contextlib.suppress(OSError, IndexError):  # just gone, or somebody else's
            if wanted in (at / "environ").read_bytes().split(b"\0"):
                head, _, tail = (at / "stat").read_text().rpartition(")")
                state, parent = tail.split()[:2]
                if state not in "ZX":
                    command = (
                        (at / "cmdline")
                        .read_bytes()
                        .replace(b"\0", b" ")
                        .decode("utf-8", "replace")
                    )
                    found.append(Found(int(name), int(parent), head.partition("(")[2], command))
    return found


def pids(mark: str, target: str) -> list[int]:
    """The processes that a step means by worker, broker, zygote or broker+worker."""
    found = look(mark)
    brokers = [each for each in found if each.is_broker]
    mothers = {each.pid for each in brokers}
    wanted = []
    if "worker" in target:
        wanted += [each.pid for each in found if each.is_worker]
    if "broker" in target:
        wanted += [each.pid for each in brokers if each.parent not in mothers]
    if target == "zygote":
        wanted += [each.pid for each in brokers if each.parent in mothers]
    return wanted

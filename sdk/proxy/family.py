"""The broker of a parent, for a child that began before the parent's first Dial (a pool, a
forkserver) and so has no TRUNKLINE_BROKER: a handle that it is given belongs there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from trunkline.wire.envelope import Kind

__all__ = ["broker_of_parents"]

ANSWER_S = 2.0


def broker_of_parents() -> str | None:
    """The address of the broker that the nearest parent of this process is a client of."""
    from trunkline.proxy.brokers import ask
    from trunkline.proxy.discovery import find_brokers

    asked = {found.address: (Kind.LIST, ()) for found in find_brokers()[0]}
    answers = ask(asked, ANSWER_S)
    clients = {
        address: said["clients"] for address, said in answers.items() if isinstance(said, dict)
    }
    for parent in _parents():
        for address, pids in clients.items():
            if parent in pids:
                return address
    return None


def _parents() -> Iterator[int]:
    """The nearest first; only that one on a system without /proc."""
    pid = os.getppid()
    while pid > 1:
        yield pid
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return

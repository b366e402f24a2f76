"""Finding the broker of a parent process, to which a given handle belongs.

A child that began before its parent's first Dial (a pool, a forkserver) has no TRUNKLINE_BROKER.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from trunkline.wire.envelope import Kind

__all__ = ["broker_of_parents"]

ANSWER_S = 2.0
"""Seconds for the answers of all brokers together."""


def broker_of_parents() -> str | None:
    """The address of the broker of this process's nearest parent with a broker. None without
    one."""
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
    """The process ids of this process's parents, the nearest first; only the nearest without
    /proc."""
    pid = os.getppid()
    while pid > 1:
        yield pid
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return

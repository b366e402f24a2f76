"""The figures of killed workers: what their ledgers hold, and where their messages went.

Pure, but for reading a ledger.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trunkline.wire import endpoint
from trunkline.wire.identity import process_of
from trunkline.wire.ledger import read_ledger

__all__ = ["RETURN_S", "Bequests", "programs_of_workers", "settled"]

MOST_LEFT = 64
RETURN_S = 60.0
"""Seconds that a living program may take to come back to another broker: a thread of the program
may hold the GIL for long. A holder of a connection has as much time."""


def settled(stats: dict[str, Any]) -> dict[str, Any]:
    """Figures of a crashed worker, for its successor.

    Messages still with the worker count as lost, or as returned where a message broker keeps them.
    Messages sent before the crash will be read.
    """
    fate = "returned" if stats.get("comes_again") else "dropped"
    lost = int(stats.get(fate, 0)) + int(stats.get("queued", 0))
    found = {**stats, fate: lost, "queued": 0, "buffered": 0}
    gone = sum(int(found.get(name, 0)) for name in ("dropped", "returned", "skipped"))
    return {**found, "read": int(found.get("messages_in", 0)) - gone}


def programs_of_workers(address: str) -> set[int]:
    """Process ids of the programs that used the workers of a lost broker, as the ledgers tell.

    These programs dial anew, and need the figures.
    """
    found = map(read_ledger, endpoint.ledgers(endpoint.folder_of(address)))
    return {process_of(holder) for ledger in found if ledger for holder in ledger.holders} - {0}


_Left = tuple[dict[str, Any], dict[bytes, int]]


class Bequests:
    """The figures of workers that were lost with the previous broker, for new connections.

    A ledger stays on the disk until the new connection is open and has its own ledger. Before that,
    the dial may fail, or this broker may be killed.
    """

    def __init__(self) -> None:
        self._claimed: dict[bytes, tuple[Path, bytes]] = {}
        """New connection -> the ledger to continue, and the former name of the object."""
        self._left: dict[bytes, _Left] = {}
        """Lost connection -> last figures of its ended replacement, and messages given to each
        holder. Holders go by their names under the previous broker."""
        self._taken: dict[bytes, tuple[bytes, _Left]] = {}
        """New connection -> lost connection, and the figures taken from `_left`, to restore after
        failure."""

    def claim(
        self, former: Sequence[Any], holder: bytes, claimant: bytes, path: Path
    ) -> tuple[dict[str, Any], dict[bytes, int]] | None:
        """Hand the figures of a lost connection to its replacement `claimant`.

        `former`: the lost connection, the object's name in it, and whether messages come again.
        `holder`: the object's present name. Returns the figures, and the number of messages given
        to each holder. Further holders may join later, so the result has their former names.
        Returns None without a ledger at `path`, or where another object has claimed the ledger.
        """
        key, name, comes_again = former
        left = self._left.pop(key, None)
        if left is not None:
            self._taken[claimant] = key, left
            stats, given = left
            return settled({**stats, "comes_again": bool(comes_again)}), _renamed(
                given, name, holder
            )
        for other, (claimed, by) in list(self._claimed.items()):
            if claimed == path:
                if by != name:
                    return None
                del self._claimed[other]  # the same object: it has given up its earlier attempt
        entry = read_ledger(path)
        if entry is None:
            return None
        self._claimed[claimant] = path, name
        had = _renamed(entry.holders, name, holder)
        return settled({**entry.counters, "comes_again": bool(comes_again)}), had

    def leave(self, former: bytes, stats: dict[str, Any], had: dict[bytes, int]) -> None:
        """Keep the figures of an ended connection, the replacement of `former`.

        Another object of `former` may still dial; or the same object, where the connection opened
        too late for it. `had`: messages given to each holder, by the names under the previous
        broker.
        """
        self._left[former] = stats, had
        while len(self._left) > MOST_LEFT:
            del self._left[next(iter(self._left))]

    def settle(self, claimant: bytes, *, opened: bool) -> None:
        """Close the claim of `claimant`.

        `opened`: the connection is open and has its own ledger, so the old ledger is removed. Else
        the figures stay for the next attempt.
        """
        key, left = self._taken.pop(claimant, (b"", None))
        if left is not None and not opened:
            self._left.setdefault(key, left)
        claim = self._claimed.pop(claimant, None)
        if claim is not None and opened:
            with contextlib.suppress(OSError):
                claim[0].unlink()


def _renamed(had: dict[bytes, int], old: bytes, new: bytes) -> dict[bytes, int]:
    return {new if each == old else each: count for each, count in had.items()}

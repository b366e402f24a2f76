"""The figures of workers that were killed: what they left in their ledgers, and what became of the messages
that they had. Pure, but for reading a ledger."""

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
"""How long a program that lives may take to come back to another broker: it may hold its GIL. An object that
holds a connection may take as long."""


def settled(stats: dict[str, Any]) -> dict[str, Any]:
    """The figures of a worker that has crashed, for the one after it: what was with it is lost (or comes
    again from a message broker that keeps it), what it had sent will be read."""
    fate = "returned" if stats.get("comes_again") else "dropped"
    lost = int(stats.get(fate, 0)) + int(stats.get("queued", 0))
    found = {**stats, fate: lost, "queued": 0, "buffered": 0}
    gone = sum(int(found.get(name, 0)) for name in ("dropped", "returned", "skipped"))
    return {**found, "read": int(found.get("messages_in", 0)) - gone}


def programs_of_workers(address: str) -> set[int]:
    """The processes whose objects had the workers of a broker that is gone, by what these have left: they
    dial anew, and need the figures."""
    found = map(read_ledger, endpoint.ledgers(endpoint.folder_of(address)))
    return {process_of(holder) for ledger in found if ledger for holder in ledger.holders} - {0}


_Left = tuple[dict[str, Any], dict[bytes, int]]


class Bequests:
    """What workers left that were lost with the broker before this one. The connection that is dialled anew
    goes on from there.

    The ledger stays on the disk until that connection is open and has a ledger of its own: an attempt may
    fail, and this broker, too, may be killed before.
    """

    def __init__(self) -> None:
        self._claimed: dict[bytes, tuple[Path, bytes]] = {}
        """New connection -> the ledger that it goes on from, and who its object was."""
        self._left: dict[bytes, _Left] = {}
        """Lost connection -> the figures of the one that took its place and has ended since, and what each
        holder was given, by its name under the broker before this one."""
        self._taken: dict[bytes, tuple[bytes, _Left]] = {}
        """New connection -> the lost one, and what it has taken of `_left`: for the next attempt where this
        one fails."""

    def claim(
        self, former: Sequence[Any], holder: bytes, claimant: bytes, path: Path
    ) -> tuple[dict[str, Any], dict[bytes, int]] | None:
        """The figures, and what each holder was given, for the connection `claimant`: its object was known as
        `former` (connection, holder, whether messages come again) and is `holder` now; other holders may yet
        join it, and have their former names. None where there is no ledger at `path`, or where another
        object has claimed it before."""
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
                del self._claimed[other]  # the same object: it has given that attempt up
        entry = read_ledger(path)
        if entry is None:
            return None
        self._claimed[claimant] = path, name
        had = _renamed(entry.holders, name, holder)
        return settled({**entry.counters, "comes_again": bool(comes_again)}), had

    def leave(self, former: bytes, stats: dict[str, Any], had: dict[bytes, int]) -> None:
        """The connection that took the place of `former` has ended, with these figures. Another object of
        `former` may yet dial, or the same one, where the connection opened too late for it. `had`: what each
        holder was given, by its name under the broker before this one."""
        self._left[former] = stats, had
        while len(self._left) > MOST_LEFT:
            del self._left[next(iter(self._left))]

    def settle(self, claimant: bytes, *, opened: bool) -> None:
        """The claimant is open, and nobody needs the old ledger any more; or it has ended without that."""
        key, left = self._taken.pop(claimant, (b"", None))
        if left is not None and not opened:
            self._left.setdefault(key, left)
        claim = self._claimed.pop(claimant, None)
        if claim is not None and opened:
            with contextlib.suppress(OSError):
                claim[0].unlink()


def _renamed(had: dict[bytes, int], old: bytes, new: bytes) -> dict[bytes, int]:
    return {new if each == old else each: count for each, count in had.items()}

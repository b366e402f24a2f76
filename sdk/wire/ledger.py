"""The last figures of a worker, where they outlive it: a small file in the broker's private folder.

A worker that is killed says nothing more, and its last STATE may be a second old. So it keeps its counters
in a file that is mapped into its memory: written with each batch, before that is sent, for 1 to 2 us.
The broker reads it when the worker has ended; the kernel keeps what was written.

    slot 0, slot 1      each: sequence, its repetition, incarnation, the counters, number of holders,
                        then for each holder its name (its length, then at most 31 bytes)
                        and how many messages it was given

The slots are written in turn, the repetition last, so a write that was cut short leaves the slot before it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["COUNTERS", "HOLDERS", "Entry", "Ledger", "read_ledger", "unpublished"]

COUNTERS: Final = (
    "messages_in", "bytes_in", "messages_out", "bytes_out", "read", "dropped", "skipped", "queued",
    "buffered", "outages", "reconnects", "errors", "peak", "returned", "redelivered",
)  # fmt: skip
"""The figures of `Stats` that are kept, in their order."""
HOLDERS: Final = 16
"""So many holders are kept; of others the broker knows what they were given only from their sum."""
_HEAD: Final = struct.Struct(f"=qqq{len(COUNTERS)}qq")
_SEAL: Final = struct.Struct("=q")
_HOLDER: Final = struct.Struct("=32pq")
_SLOT: Final = _HEAD.size + HOLDERS * _HOLDER.size
_SEAL_AT: Final = 8


class Entry(NamedTuple):
    """What a worker wrote last."""

    incarnation: int
    counters: dict[str, int]
    holders: dict[bytes, int]
    """Holder -> messages it was given, by this worker and those before it."""


class Ledger:
    """The worker's side. OSError when the file cannot be made. That of a worker before this one stays until
    `publish`: at any moment there are figures to go on from."""

    def __init__(self, path: Path, incarnation: int) -> None:
        self._incarnation = incarnation
        self._sequence = 0
        self._path = path
        self._unpublished = unpublished(path)
        with contextlib.suppress(FileNotFoundError):
            self._unpublished.unlink()  # of a worker that was killed while it started
        fd = os.open(self._unpublished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Written, not stretched: a mapping of what a full disk has no room for is fatal at the first use.
            if os.write(fd, bytes(2 * _SLOT)) < 2 * _SLOT:
                raise OSError("no room for a worker's figures")
            self._map = mmap.mmap(fd, 2 * _SLOT)
        except OSError:
            self._unpublished.unlink()
            raise
        finally:
            os.close(fd)

    def publish(self) -> None:
        """From now on the broker finds this ledger, in the place of one before it."""
        os.replace(self._unpublished, self._path)

    def write(self, counters: tuple[int, ...], holders: Mapping[bytes, int]) -> None:
        """The figures now: `counters` in the order of COUNTERS. What has no place there (a name or a number
        that nobody of ours gives) is not kept, and nothing else suffers from it."""
        with contextlib.suppress(struct.error):
            self._write(counters, holders)

    def _write(self, counters: tuple[int, ...], holders: Mapping[bytes, int]) -> None:
        self._sequence = sequence = self._sequence + 1
        at = _SLOT if sequence & 1 else 0
        count = min(len(holders), HOLDERS)
        _HEAD.pack_into(self._map, at, sequence, 0, self._incarnation, *counters, count)
        if count:
            place = at + _HEAD.size
            for holder, given in (
                list(holders.items())[:HOLDERS] if count < len(holders) else holders.items()
            ):
                _HOLDER.pack_into(self._map, place, holder, given)
                place += _HOLDER.size
        _SEAL.pack_into(self._map, at + _SEAL_AT, sequence)

    def close(self) -> None:
        """Let go of the file. The broker removes it, as it knows whether the figures are still needed."""
        self._map.close()


def unpublished(path: Path) -> Path:
    """Where a ledger is while it is made."""
    return path.with_name(f"{path.name}.new")


def read_ledger(path: Path) -> Entry | None:
    """The newest whole entry; None when there is none."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if len(data) != 2 * _SLOT:
        return None
    heads = [(at, _HEAD.unpack_from(data, at)) for at in (0, _SLOT)]
    whole = [(at, head) for at, head in heads if head[0] > 0 and head[0] == head[1]]
    if not whole:
        return None
    at, (_, _, incarnation, *counters, count) = max(whole, key=lambda each: each[1][0])
    places = range(
        at + _HEAD.size, at + _HEAD.size + min(count, HOLDERS) * _HOLDER.size, _HOLDER.size
    )
    holders = [_HOLDER.unpack_from(data, place) for place in places]
    return Entry(
        incarnation,
        dict(zip(COUNTERS, counters, strict=True)),
        dict(holders),
    )

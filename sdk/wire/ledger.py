"""The last figures of a worker, in a small file that outlives the worker.

A killed worker sends no last message, and its last STATE may be a second old. So a worker has a
file mapped into its memory. A stream's worker writes its counters there with each batch, before the
batch is sent; a write takes 1 to 2 us. (A database's worker keeps no counters there.) The kernel
keeps the written memory, and the broker reads the file after the worker's end.

    slot 0, slot 1      each: sequence, its repetition, incarnation, the counters, the number of
                        holders, then for each holder its name (its length, then at most 31 bytes)
                        and how many messages it was given

The slots are written in turn, and the repetition of the sequence last. A write that is cut short
leaves its slot with two different numbers, and the slot before it complete.
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
"""The figures of `Stats` in a ledger, in their order."""
HOLDERS: Final = 16
"""The ledger has room for so many holders. For further holders, the broker knows only the sum."""
_HEAD: Final = struct.Struct(f"=qqq{len(COUNTERS)}qq")
_SEAL: Final = struct.Struct("=q")
_HOLDER: Final = struct.Struct("=32pq")
_SLOT: Final = _HEAD.size + HOLDERS * _HOLDER.size
_SEAL_AT: Final = 8


class Entry(NamedTuple):
    """The last complete entry of a worker."""

    incarnation: int
    counters: dict[str, int]
    holders: dict[bytes, int]
    """Holder -> messages given to it by this worker and earlier ones."""


class Ledger:
    """The worker's side of a ledger. Raises OSError when the file cannot be made.

    The ledger of the previous worker stays until `publish`, so a complete ledger exists at any
    moment.
    """

    def __init__(self, path: Path, incarnation: int) -> None:
        self._incarnation = incarnation
        self._sequence = 0
        self._path = path
        self._unpublished = unpublished(path)
        with contextlib.suppress(FileNotFoundError):
            self._unpublished.unlink()  # left by a worker that was killed while it started
        fd = os.open(self._unpublished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Fill the file with zeros instead of stretching it. On a full disk, the first write to
            # a stretched file's mapping would kill the process.
            if os.write(fd, bytes(2 * _SLOT)) < 2 * _SLOT:
                raise OSError("no room for a worker's figures")
            self._map = mmap.mmap(fd, 2 * _SLOT)
        except OSError:
            self._unpublished.unlink()
            raise
        finally:
            os.close(fd)

    def publish(self) -> None:
        """Put this ledger in the place of the previous one, where the broker finds it."""
        os.replace(self._unpublished, self._path)

    def write(self, counters: tuple[int, ...], holders: Mapping[bytes, int]) -> None:
        """Write the present figures. `counters`: in the order of COUNTERS.

        An entry with a name or number that does not fit is dropped, without an error: no worker
        makes one.
        """
        with contextlib.suppress(struct.error):
            self._write(counters, holders)

    def _write(self, counters: tuple[int, ...], holders: Mapping[bytes, int]) -> None:
        """Write an entry into the slot that is next in turn."""
        # Odd numbers go into slot 1, even numbers into slot 0. A number counts as used when its entry is
        # complete: after one that did not fit, the next entry must not go into the only complete slot.
        sequence = self._sequence + 1
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
        # Last of all: from now on the two numbers agree, and the slot is complete.
        _SEAL.pack_into(self._map, at + _SEAL_AT, sequence)
        self._sequence = sequence

    def close(self) -> None:
        """Close the file. The broker removes it, because the broker knows how long it is needed."""
        self._map.close()


def unpublished(path: Path) -> Path:
    """The path of a ledger until `publish`."""
    return path.with_name(f"{path.name}.new")


def read_ledger(path: Path) -> Entry | None:
    """Return the newest complete entry; None without one."""
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

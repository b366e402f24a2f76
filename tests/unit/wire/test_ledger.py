"""The file that keeps a worker's figures for when it is killed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from trunkline.wire.ledger import COUNTERS, HOLDERS, Entry, Ledger, read_ledger

NAMES = {b"c" + bytes([n]) * 15 + b"\0": 100 + n for n in range(2)}


def counters(first: int) -> tuple[int, ...]:
    return tuple(range(first, first + len(COUNTERS)))


def entry(first: int, holders: dict[bytes, int]) -> Entry:
    return Entry(3, dict(zip(COUNTERS, counters(first), strict=True)), holders)


def test_the_last_figures_are_there_after_any_number_of_writes(tmp_path: Path) -> None:
    path = tmp_path / "f-1"
    ledger = Ledger(path, 3)
    ledger.publish()
    assert read_ledger(path) is None
    for first in range(5):
        ledger.write(counters(first), NAMES)
        assert read_ledger(path) == entry(first, NAMES)
    ledger.write(counters(1 << 62), {})
    assert read_ledger(path) == entry(1 << 62, {})
    ledger.close()
    assert read_ledger(path) == entry(1 << 62, {})


def test_a_torn_write_leaves_the_figures_before_it(tmp_path: Path) -> None:
    path = tmp_path / "f-1"
    ledger = Ledger(path, 3)
    ledger.publish()
    images = []
    for first in (10, 20, 30):
        ledger.write(counters(first), {b"c": first})
        images.append(path.read_bytes())
    before, after = images[1:]
    seal = next(n for n in range(len(before)) if before[n] != after[n]) + 8
    for cut in range(len(before)):  # the write goes from left to right, the seal last
        image = bytearray(after[:cut] + before[cut:])
        image[seal : seal + 8] = before[seal : seal + 8]
        path.write_bytes(image)
        assert read_ledger(path) == entry(20, {b"c": 20})
    path.write_bytes(after)
    assert read_ledger(path) == entry(30, {b"c": 30})
    ledger.close()


def test_nobody_else_may_read_it_and_it_replaces_that_of_a_former_worker(tmp_path: Path) -> None:
    path = tmp_path / "f-1"
    former = Ledger(path, 1)
    former.publish()
    ledger = Ledger(path, 2)
    ledger.publish()
    ledger.write(counters(0), {})
    former.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (found := read_ledger(path))
    assert found.incarnation == 2
    ledger.close()


def test_holders_beyond_the_room_for_them_are_left_out(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "f-1", 1)
    ledger.publish()
    ledger.write(counters(0), {b"%d" % n: n for n in range(HOLDERS + 5)})
    found = read_ledger(tmp_path / "f-1")
    assert found
    assert found.holders == {b"%d" % n: n for n in range(HOLDERS)}
    ledger.close()


def test_a_full_disk_is_an_error_at_once_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        Ledger(tmp_path / "f-1", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"short", bytes(4096)])
def test_what_is_no_ledger_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f-1"
    path.write_bytes(content)
    assert read_ledger(path) is None


def test_a_number_that_has_no_room_is_not_kept_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "f"
    ledger = Ledger(path, 1)
    ledger.publish()
    counters = tuple(range(len(COUNTERS)))
    ledger.write(counters, {b"a": 1})
    ledger.write(counters, {b"a": 1 << 63})
    assert read_ledger(path) == Entry(1, dict(zip(COUNTERS, counters, strict=True)), {b"a": 1})
    ledger.write(counters, {b"a": 2})
    ledger.write(counters, {b"a": 3})
    entry = read_ledger(path)
    assert entry is not None
    assert entry.holders == {b"a": 3}
    ledger.close()


def test_a_kill_in_the_entry_after_one_that_had_no_room_leaves_the_complete_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    ledger = Ledger(path, 3)
    ledger.publish()
    ledger.write(counters(0), {b"a": 1})
    ledger.write(counters(0), {b"a": 1 << 63})

    class Killed(Exception):
        pass

    class Seal:
        size = 8

        def pack_into(self, *_: object) -> None:
            raise Killed

    monkeypatch.setattr("trunkline.wire.ledger._SEAL", Seal())
    with pytest.raises(Killed):
        ledger.write(counters(0), {b"a": 2})
    assert read_ledger(path) == entry(0, {b"a": 1})
    ledger.close()


def test_the_figures_of_the_worker_before_stay_until_there_are_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "f-1"
    former = Ledger(path, 1)
    former.publish()
    former.write(counters(0), {})
    ledger = Ledger(path, 2)
    assert (found := read_ledger(path))
    assert found.incarnation == 1
    ledger.write(counters(5), {})
    ledger.publish()
    assert (found := read_ledger(path))
    assert found.incarnation == 2
    former.close()
    ledger.close()

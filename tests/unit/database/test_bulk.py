"""The rows of one `executemany` in the worker: a sequence, unpacked chunk by chunk."""

from __future__ import annotations

import pytest

from trunkline.actors.database import bulk
from trunkline.actors.database.bulk import BulkRows
from trunkline.wire.table import pack_rows, unpack_rows

COUNT, SIZE = 25, 10
ROWS = [[number, str(number)] for number in range(COUNT)]


def rows() -> BulkRows:
    return BulkRows([pack_rows(ROWS[at : at + SIZE]) for at in range(0, COUNT, SIZE)], SIZE, COUNT)


def test_it_has_the_rows_in_order() -> None:
    assert len(rows()) == COUNT
    assert list(rows()) == ROWS
    assert [rows()[number] for number in range(-COUNT, COUNT)] == ROWS + ROWS


@pytest.mark.parametrize("start", [None, 0, 3, 10, 19, 24, 30, -4])
@pytest.mark.parametrize("stop", [None, 0, 5, 10, 20, 25, 99, -1])
@pytest.mark.parametrize("step", [None, 1, 3, -1, -12])
def test_a_slice_is_that_of_a_list(start: int | None, stop: int | None, step: int | None) -> None:
    assert rows()[start:stop:step] == ROWS[start:stop:step]


def test_no_row_is_beyond_the_last() -> None:
    with pytest.raises(IndexError):
        rows()[COUNT]


@pytest.mark.parametrize("size", [1, 4, 10, 25])
def test_a_chunk_is_unpacked_once_for_all_its_slices(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = []

    def counted(data: bytes) -> object:
        unpacked.append(data)
        return unpack_rows(data)

    given = rows()
    monkeypatch.setattr(bulk, "unpack_rows", counted)
    assert [row for at in range(0, COUNT, size) for row in given[at : at + size]] == ROWS
    assert len(unpacked) == 3

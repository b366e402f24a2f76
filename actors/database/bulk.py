"""The rows of values of one `executemany`, unpacked while they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, overload

from trunkline.wire.table import Table, unpack_rows, unpack_table

__all__ = ["BulkRows"]


class BulkRows(Sequence[Any]):
    """A sequence of rows, each a list or a dict.

    The rows came packed in chunks, and an iteration unpacks one chunk at a time.

    To unpack all chunks at once takes twice as long, for two reasons: the rows do not fit into
    the processor's caches, and Python's garbage collector examines them.
    """

    def __init__(self, chunks: Sequence[bytes], size: int, count: int) -> None:
        """`size` rows in each chunk but the last, `count` rows in all."""
        self._chunks = chunks
        self._size = size
        self._count = count
        self._kept: tuple[int, list[Any]] | None = None
        """Number and rows of the chunk that was unpacked last."""

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(map(unpack_rows, self._chunks))

    def parts(self) -> Iterator[list[Any] | Table]:
        """The rows chunk by chunk. A chunk that came by columns is a Table."""
        return map(unpack_table, self._chunks)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            numbers = range(self._count)[index]
            if not numbers:
                return []
            first, last = sorted((numbers[0] // self._size, numbers[-1] // self._size))
            rows = list(chain.from_iterable(map(self._chunk, range(first, last + 1))))
            return [rows[number - first * self._size] for number in numbers]
        number = range(self._count)[index]
        return self._chunk(number // self._size)[number % self._size]

    def _chunk(self, number: int) -> list[Any]:
        """The rows of a chunk.

        The last chunk is kept unpacked, because drivers go through the rows slice by slice.
        """
        if self._kept is None or self._kept[0] != number:
            self._kept = number, unpack_rows(self._chunks[number])
        return self._kept[1]

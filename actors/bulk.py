"""The rows of values of one `executemany`, unpacked as they are taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, overload

from trunkline.wire import values

__all__ = ["BulkRows"]


class BulkRows(Sequence[Any]):
    """A sequence of rows, each a list or a dict. They came packed in chunks, and one chunk at a time is
    unpacked for whoever iterates: all of them at once would take twice as long, most of it for memory that
    the processor's caches cannot hold, and for Python's search for cycles in it."""

    def __init__(self, chunks: Sequence[bytes], size: int, count: int) -> None:
        """`size` rows in each chunk but the last, `count` rows in all."""
        self._chunks = chunks
        self._size = size
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(map(values.unpack, self._chunks))

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._count))]
        number = range(self._count)[index]
        return values.unpack(self._chunks[number // self._size])[number % self._size]

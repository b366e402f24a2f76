"""The living objects of one kind in this process, by weak references."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Members"]

T = TypeVar("T")


class Members(Generic[T]):
    """A set of weak references that several threads may use at once.

    Any thread adds and iterates, and a finalizer removes. Each of these is one atomic operation on
    a dict. (Iterating over a WeakSet while another thread adds to it raises RuntimeError.)
    """

    def __init__(self) -> None:
        self._members: dict[int, weakref.ref[T]] = {}

    def add(self, member: T) -> None:
        """Add an object until `discard` or until the garbage collector takes the object."""
        key, members = id(member), self._members

        def gone(reference: object) -> None:
            if members.get(key) is reference:  # otherwise another object has got the same id
                del members[key]

        members[key] = weakref.ref(member, gone)

    def discard(self, member: T) -> None:
        self._members.pop(id(member), None)

    def __iter__(self) -> Iterator[T]:
        return iter(
            [
                each
                for reference in list(self._members.values())
                if (each := reference()) is not None
            ]
        )

    def __len__(self) -> int:
        return len(self._members)

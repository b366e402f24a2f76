"""Which objects of one kind live in this process, without keeping them alive."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Members"]

T = TypeVar("T")


class Members(Generic[T]):
    """Living objects of this process. Any thread adds and looks, a finalizer takes out: each is one
    step (a WeakSet that is added to while another thread looks through it raises)."""

    def __init__(self) -> None:
        self._members: dict[int, weakref.ref[T]] = {}

    def add(self, member: T) -> None:
        key, members = id(member), self._members

        def gone(reference: object) -> None:
            if members.get(key) is reference:  # else another object has got that id
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

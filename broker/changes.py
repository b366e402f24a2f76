"""What became of a connection's holders lately, for a worker that could not hear it.

The broker tells a worker of each holder that comes, goes or takes another name. A worker that is just being
started, or that takes the broker for lost, has no socket that the words could reach. It says which holders
it knows when it registers (READY); it is then told what it has missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from trunkline.wire.envelope import Kind

__all__ = ["HolderChanges"]

KEPT_S = 60.0
"""Longer than a worker takes to start, or to find out that its broker has not heard it."""


class _Attached(NamedTuple):
    """The fields of ATTACH, and when it was."""

    at: float
    old: bytes
    rest: tuple[Any, ...]


class _Left(NamedTuple):
    """The fields of DETACH, and when it was."""

    at: float
    consumed: int | None
    closed: bool


class HolderChanges:
    """Of one connection. Pure: the caller gives the time, in seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._attached: dict[bytes, _Attached] = {}
        self._left: dict[bytes, _Left] = {}
        self._later_names: dict[bytes, bytes] = {}

    def attached(self, now: float, holder: bytes, old: bytes, *rest: Any) -> None:
        """A holder came; `old`: its former name, or b"". `rest`: what follows in ATTACH."""
        self._attached[holder] = _Attached(now, old, rest)
        if old:
            self._later_names[old] = holder
        self._forget(now - KEPT_S)

    def left(self, now: float, holder: bytes, consumed: int | None, closed: bool) -> None:
        """A holder went; the arguments are those of DETACH."""
        self._left[holder] = _Left(now, consumed, closed)
        self._forget(now - KEPT_S)

    def missed(
        self, known: Iterable[bytes], present: Mapping[bytes, bytes]
    ) -> Iterator[tuple[Kind, tuple[Any, ...]]]:
        """The words that make a worker that knows some holders know those of the present (each with its
        control socket)."""
        known = set(known)
        superseded = set()
        for holder in present.keys() - known:
            came = self._attached.get(holder, _Attached(0, b"", (0, 0, [])))
            old = came.old
            if (former := self._former_name(holder, known)) is not None:
                superseded.add(former)
                old = former
            yield Kind.ATTACH, (holder, present[holder], old, *came.rest)
        for holder in known - present.keys() - superseded:
            _, consumed, closed = self._left.get(holder, _Left(0, None, False))
            yield Kind.DETACH, (holder, consumed, closed)

    def name_now(self, holder: bytes) -> bytes:
        """What a holder is called now that had this name lately."""
        while (later := self._later_names.get(holder)) is not None:
            holder = later
        return holder

    def _former_name(self, holder: bytes, known: set[bytes]) -> bytes | None:
        """The last of a holder's former names that is known."""
        while (there := self._attached.get(holder)) is not None and there.old:
            holder = there.old
            if holder in known:
                return holder
        return None

    def _forget(self, before: float) -> None:
        """What was noted before that time. Dicts keep the order in which things were noted."""
        while self._attached and (first := next(iter(self._attached.items())))[1].at < before:
            del self._attached[first[0]]
            self._later_names.pop(first[1].old, None)
        while self._left and (gone := next(iter(self._left.items())))[1].at < before:
            del self._left[gone[0]]

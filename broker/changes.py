"""Recent changes among a connection's holders, for a worker that has missed them.

The broker tells a worker of each holder that comes, goes or takes another name. A worker that
starts, or takes the broker for lost, has no socket at the broker. Its READY names the holders known
to the worker, and the broker answers with the missed changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from trunkline.wire.envelope import Kind

__all__ = ["HolderChanges"]

KEPT_S = 60.0
"""Seconds. A worker takes less time to start, or to find out that the broker has not heard it."""


class _Attached(NamedTuple):
    """The fields of ATTACH, and the time."""

    at: float
    old: bytes
    rest: tuple[Any, ...]


class _Left(NamedTuple):
    """The fields of DETACH, and the time."""

    at: float
    consumed: int | None
    closed: bool


class HolderChanges:
    """The changes of one connection. Pure: times are passed in, in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._attached: dict[bytes, _Attached] = {}
        self._left: dict[bytes, _Left] = {}
        self._later_names: dict[bytes, bytes] = {}

    def attached(self, now: float, holder: bytes, old: bytes, *rest: Any) -> None:
        """Note a new holder. `old`: the former name, or b"". `rest`: further fields of ATTACH."""
        self._attached[holder] = _Attached(now, old, rest)
        if old:
            self._later_names[old] = holder
        self._forget(now - KEPT_S)

    def left(self, now: float, holder: bytes, consumed: int | None, closed: bool) -> None:
        """Note the end of a holder; the arguments are those of DETACH."""
        self._left[holder] = _Left(now, consumed, closed)
        self._forget(now - KEPT_S)

    def missed(
        self, known: Iterable[bytes], present: Mapping[bytes, bytes]
    ) -> Iterator[tuple[Kind, tuple[Any, ...]]]:
        """Yield the messages that bring a worker up to date.

        `known`: the holders known to the worker. `present`: the present holders with their control
        sockets.
        """
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
        """The present name of a holder that had another name lately."""
        while (later := self._later_names.get(holder)) is not None:
            holder = later
        return holder

    def _former_name(self, holder: bytes, known: set[bytes]) -> bytes | None:
        """The latest of a holder's former names in `known`; None without one."""
        while (there := self._attached.get(holder)) is not None and there.old:
            holder = there.old
            if holder in known:
                return holder
        return None

    def _forget(self, before: float) -> None:
        """Forget all changes noted before a time. A dict keeps the order of insertion."""
        while self._attached and (first := next(iter(self._attached.items())))[1].at < before:
            del self._attached[first[0]]
            self._later_names.pop(first[1].old, None)
        while self._left and (gone := next(iter(self._left.items())))[1].at < before:
            del self._left[gone[0]]

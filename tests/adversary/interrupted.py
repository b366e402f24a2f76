"""A strategy that is interrupted by SIGINT again and again, catches it and goes on: the other side of
`tests.adversary.interrupts`.

Its handler raises KeyboardInterrupt as Python's own does, but in the code of Trunkline alone: what a program
has been given is the program's to keep, and an exception between two of its lines would take it away.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

import trunkline
from tests.support.waiting import until
from trunkline import RaisingConnection, connect
from trunkline.proxy import process
from trunkline.wire import values
from trunkline.wire.envelope import Kind

__all__ = ["KINDS", "main"]

_PACKAGE = os.path.dirname(trunkline.__file__)
_T = TypeVar("_T")
ROWS = 1500


class Interrupts:
    """`wanted` KeyboardInterrupts, then no more."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.raised, self.during_cleanup = wanted, 0, 0
        self._armed = False
        signal.signal(signal.SIGINT, self._handle)

    @property
    def over(self) -> bool:
        return self.raised >= self.wanted

    def _handle(self, number: int, frame: FrameType | None) -> None:
        while frame is not None and self._armed and not self.over:
            if frame.f_code.co_filename.startswith(_PACKAGE):
                self.raised += 1
                self.during_cleanup += isinstance(sys.exc_info()[1], KeyboardInterrupt)
                raise KeyboardInterrupt
            frame = frame.f_back

    def call(self, work: Callable[..., _T], *arguments: object) -> list[_T]:
        """What it returned, in a list; an empty one when it was interrupted."""
        self._armed = True
        try:
            return [work(*arguments)]
        except KeyboardInterrupt:
            return []
        finally:
            self._armed = False


def _say(*words: object) -> None:
    print(*words, flush=True)


def _unaccounted(conn: RaisingConnection) -> int:
    stats = conn.stats()
    told = stats.read + stats.buffered + stats.dropped + stats.skipped + stats.returned
    return stats.messages_in - told


def _read(calls: Callable[[RaisingConnection], list[Callable[[], Any]]]) -> Callable[..., None]:
    def run(address: str, interrupts: Interrupts, choose: random.Random) -> None:
        """Numbers, until the word "end" has come."""
        conn, seen, told = connect(address, buffer=1_000_000), list[int](), False
        while True:
            message = None
            for taken in interrupts.call(choose.choice(calls(conn))):
                message = getattr(taken, "data", taken)
            if message == "end":
                break
            if message is not None:
                seen.append(int(message))
            if interrupts.over and not told:
                told = True
                _say("enough")
        stats = conn.stats()
        in_order = seen == sorted(set(seen))
        lost = stats.messages_in - 1 - stats.skipped - len(seen)
        _say("result", in_order, stats.read - 1 - len(seen), lost, stats.skipped)
        _say("unaccounted", _unaccounted(conn))

    return run


def _write(address: str, interrupts: Interrupts, choose: random.Random) -> None:
    conn, taken, number = connect(address), [], 0
    while not interrupts.over:
        text = f"<{number}>"
        taken += [number for count in interrupts.call(conn.write, text) if count == len(text)]
        number += 1
    _say("enough")
    _say("taken", *taken)
    _say("result", conn.write("end", 20_000))


def _exec(address: str, interrupts: Interrupts, choose: random.Random) -> None:
    """Single statements; one that was told to be done is there, none is there twice."""
    conn, done, number, spoilt = connect(address), [], 0, 0
    conn.exec("CREATE TABLE t (n INTEGER)")
    while not interrupts.over:
        if choose.random() < 0.7:
            done += [number for _ in interrupts.call(conn.exec, "INSERT INTO t VALUES (?)", number)]
        elif choose.random() < 0.5:
            for result in interrupts.call(conn.exec, "SELECT ?", number):
                spoilt += result["values"] != [[number]]
        else:
            for rows in interrupts.call(lambda: list(conn.query(_COUNTING))):
                spoilt += rows != [[n] for n in range(1, ROWS + 1)]
        number += 1
    _say("enough")
    found = [n for (n,) in conn.exec("SELECT n FROM t ORDER BY n", timeout=20_000)["values"]]
    _say("result", spoilt, found == sorted(set(found)), set(done) <= set(found), _queries(conn))


_COUNTING = f"WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {ROWS}) SELECT x FROM c"


def _transaction(address: str, interrupts: Interrupts, choose: random.Random) -> None:
    """Pairs of rows: each is there as a whole or not at all."""
    conn, done, number = connect(address), [], 0
    conn.exec("CREATE TABLE t (n INTEGER, half INTEGER)")

    def pair() -> None:
        with conn.transaction():
            conn.exec("INSERT INTO t VALUES (?, 1)", number)
            conn.exec("INSERT INTO t VALUES (?, 2)", number)

    while not interrupts.over:
        done += [number for _ in interrupts.call(pair)]
        number += 1
    _say("enough")
    rows = conn.exec("SELECT n, half FROM t ORDER BY n, half", timeout=20_000)["values"]
    found = sorted({n for n, _ in rows})
    whole = rows == [[n, half] for n in found for half in (1, 2)]
    _say("result", 0, whole, set(done) <= set(found), _queries(conn))


def _queries(conn: RaisingConnection) -> int:
    """Queries that are open at the worker; the word of their end comes another way, so it is waited for."""
    with contextlib.suppress(AssertionError):
        until(lambda: not conn.stats().queries, "their end", 20)
    return conn.stats().queries


def _close(address: str, interrupts: Interrupts, choose: random.Random) -> None:
    """Dials that are interrupted, and closes: by hand, at the end of a block, in `finally`."""
    kept = connect(address)

    def block() -> None:
        with connect(address) as conn:
            conn.write("x", 5000)

    def by_hand() -> None:
        conn = connect(address)
        try:
            conn.write("x", 5000)
        finally:
            conn.close()

    while not interrupts.over:
        interrupts.call(choose.choice([block, by_hand]))
    _say("enough")
    with contextlib.suppress(AssertionError):
        until(lambda: _connections() == 1, "the end of the others", 30)
    _say("result", _connections(), kept.write("x", 20_000), kept.read(20_000))


def _connections() -> int:
    found = values.unpack(process.get().link.ask_broker(Kind.LIST)[0])["connections"]
    assert isinstance(found, list)
    return len(found)


KINDS: dict[str, Callable[[str, Interrupts, random.Random], None]] = {
    "read": _read(
        lambda conn: [
            lambda: conn.read(20_000),
            lambda: conn.read(1),
            lambda: conn.read(-1),
            lambda: conn.receive(20_000),
            lambda: next(iter(conn)),
        ]
    ),
    "newest": _read(lambda conn: [lambda: conn.read(-2), lambda: conn.read(5)]),
    "write": _write,
    "exec": _exec,
    "transaction": _transaction,
    "close": _close,
}


def main(kind: str, address: str, count: str, seed: str) -> None:
    """`count` interrupts while doing this."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    interrupts = Interrupts(int(count))
    _say("ready")
    KINDS[kind](address, interrupts, random.Random(seed))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _say("interrupts", interrupts.raised, interrupts.during_cleanup)
    with contextlib.suppress(EOFError):
        input()

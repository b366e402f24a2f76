"""Envelopes that are damaged in every way, at the broker's socket and at a worker's door: nobody feels them.

TRUNKLINE_FUZZ=1000000 sends that many. A failure is repeated with the seed that pytest prints.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from tests.support.mutation import CARRIED_OUT, damaged, valid
from tests.support.sockets import SocketServer, echo
from tests.support.waiting import until
from trunkline import Connection, connect
from trunkline.proxy import process
from trunkline.wire import values
from trunkline.wire.envelope import BROKER, Kind
from trunkline.wire.framing import frame

COUNT = int(os.environ.get("TRUNKLINE_FUZZ", "10000"))
PIECE = 500
KINDS = [kind for kind in Kind if kind not in CARRIED_OUT]
GROWTH = 40 << 20


@pytest.fixture
def conns() -> Iterator[tuple[Connection, Connection]]:
    with (
        SocketServer(echo) as server,
        connect(server.url) as stream,
        connect("sqlite3://:memory:") as db,
    ):
        db.exec("CREATE TABLE t (n)")
        yield stream, db


def works(stream: Connection, db: Connection, number: int) -> None:
    assert stream.write(f"well {number}") == len(f"well {number}")
    assert stream.read(10_000) == f"well {number}"
    db.exec("INSERT INTO t VALUES (?)", number)
    assert db.exec("SELECT max(n) FROM t").values == [[number]]


def broker_pid() -> int:
    pid: int = values.unpack(process.get().link.ask_broker(Kind.LIST)[0])["pid"]
    return pid


def watched(stream: Connection, db: Connection) -> list[psutil.Process]:
    return [
        psutil.Process(pid)
        for pid in (broker_pid(), int(stream.stats().pid or 0), int(db.stats().pid or 0))
    ]


def memory(processes: list[psutil.Process]) -> list[int]:
    return [process.memory_info().rss for process in processes]


def test_at_the_broker(
    conns: tuple[Connection, Connection], broker: str, rng: random.Random
) -> None:
    processes = watched(*conns)
    before: list[int] = []
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        for number in range(COUNT // PIECE):
            sock: Any = context.socket(zmq.DEALER)  # another sender each time
            sock.connect(broker)
            for _ in range(PIECE):
                sock.send_multipart(_envelope(rng, conns))
            sock.close(linger=5000)
            works(*conns, number)
            before = before or memory(processes)
    finally:
        context.destroy(linger=0)
    _nobody_has_felt_it(conns, processes, before)


def _envelope(rng: random.Random, conns: tuple[Connection, Connection]) -> list[bytes]:
    conn = rng.choice(conns)
    kind = rng.choice(KINDS)
    to = rng.choice(
        [
            BROKER,
            BROKER,
            conn._member.key,
            conn._member.key,
            conn._member.holder_id,
            b"x" * 8,
            rng.randbytes(5),
        ]
    )
    head = damaged(rng, kind, valid(rng, kind, conn._member.holder_id, conn._member.key))
    if len(head) > 2 and head[2] in CARRIED_OUT:  # the damage made an order of it
        head = head[:2] + b"\x7e" + head[3:]
    return [to, head, *(rng.randbytes(rng.randrange(30)) for _ in range(rng.randrange(3)))]


def test_at_a_door(conns: tuple[Connection, Connection], broker: str, rng: random.Random) -> None:
    processes = watched(*conns)
    before: list[int] = []
    folder = Path(broker.removeprefix("ipc://")).parent
    for number in range(COUNT // PIECE):
        for conn in conns:
            _knock(rng, folder / f"w-{conn._member.key.hex()}", conn)
        works(*conns, number)
        before = before or memory(processes)
    _nobody_has_felt_it(conns, processes, before)


def _knock(rng: random.Random, door: Path, conn: Connection) -> None:
    left = PIECE // 2
    while left > 0:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(door))
            try:
                for _ in range(rng.randrange(1, 40)):
                    left -= 1
                    kind = rng.choice(KINDS)
                    head = damaged(
                        rng, kind, valid(rng, kind, conn._member.holder_id, conn._member.key)
                    )
                    if len(head) > 2 and head[2] in CARRIED_OUT:
                        head = head[:2] + b"\x7e" + head[3:]
                    sock.sendall(frame(head[:60_000], rng.randbytes(rng.randrange(20))))
            except OSError:  # it has hung up on us
                continue


def _nobody_has_felt_it(
    conns: tuple[Connection, Connection], processes: list[psutil.Process], before: list[int]
) -> None:
    stream, db = conns
    assert (stream.stats().state, stream.stats().holders) == ("open", 1)
    assert (db.stats().state, db.stats().holders) == ("open", 1)
    assert watched(*conns) == processes, "none was replaced"
    until(
        lambda: all(
            now < then + GROWTH for now, then in zip(memory(processes), before, strict=True)
        ),
        "less memory",
    )

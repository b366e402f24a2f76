"""What was given up is never carried out, also where the worker's door is gone and everything goes through a
broker that is stopped for a while."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.sockets import Peer, SocketServer
from trunkline import Dial, connect
from trunkline.errors import OperationTimeout, OutcomeUnknown
from trunkline.proxy import process
from trunkline.proxy.connection import Connection
from trunkline.wire import endpoint, values
from trunkline.wire.envelope import Kind

pytestmark = pytest.mark.own_broker


def listen(peer: Peer) -> None:
    """Read on, and answer nothing."""
    while peer.read():
        pass


def close_the_door(conn: Connection) -> None:
    """As where its socket could not be made: requests go through the broker."""
    client = process.current()
    assert client is not None
    endpoint.door(client.link.address, conn._member.key).unlink()
    conn._member.route.close_requests()


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


GRACE_S = 1.5
"""For a machine that is busy with other things."""


def broker_pid() -> int:
    return int(values.unpack(process.get().link.ask_broker(Kind.LIST)[0])["pid"])


@contextmanager
def stopped_broker() -> Iterator[None]:
    with stopped(broker_pid()):
        yield


@pytest.mark.parametrize(
    ("call", "limit_s"),
    [
        (lambda conn: conn.fd(), 5.0),
        (lambda conn: conn.stats(), 5.0),
        (lambda conn: conn.write("x", 300), 0.3),
        (lambda conn: conn.read(300), 0.3),
        (lambda conn: conn.read(-1), 0.0),
        (lambda conn: conn.read(-2), 0.0),
        (lambda conn: conn.receive(300), 0.3),
        (lambda conn: conn.close(), 0.5),
        (lambda conn: Dial("tcp://127.0.0.1:9", 1), 1.0),
    ],
    ids=["fd", "stats", "write", "read", "read now", "read newest", "receive", "close", "dial"],
)
def test_no_call_outlives_its_deadline_while_all_are_stopped(
    call: Callable[[Connection], object], limit_s: float
) -> None:
    with SocketServer(listen) as server, connect(server.url) as raising:
        conn = Dial(server.url)
        assert conn is not None
        pid = conn.stats().pid
        assert pid
        with stopped(broker_pid(), pid):
            began = time.monotonic()
            call(conn)
            took = time.monotonic() - began
        assert took <= limit_s + GRACE_S
        assert raising.write("x", 20_000) == 1
        conn.close()


def test_a_handle_is_had_while_only_the_worker_is_stopped() -> None:
    with SocketServer(listen) as server, connect(server.url) as conn:
        pid = conn.stats().pid
        assert pid
        with stopped(pid):
            began = time.monotonic()
            handle = conn.fd()
            took = time.monotonic() - began
        assert handle == conn.fd()
        assert took <= 5 + GRACE_S


def test_a_write_that_was_given_up_never_reaches_the_peer() -> None:
    with SocketServer(listen) as server:
        conn = Dial(server.url)
        assert conn is not None
        close_the_door(conn)
        with stopped_broker():
            assert conn.write("OLD", 300) == 0
            assert conn.write("OLDER", 100) == 0
        assert conn.write("NEW", 20_000) == 3
        server.wait_received(b"NEW")
        assert server.peers[0].received == b"NEW"
        conn.close()


def test_a_statement_that_was_given_up_is_never_run(tmp_path: Path) -> None:
    with connect(f"sqlite3://{tmp_path}/t.db") as db:
        db.exec("CREATE TABLE t (n)")
        close_the_door(db)
        with stopped_broker():
            with pytest.raises((OperationTimeout, OutcomeUnknown)):
                db.exec("INSERT INTO t VALUES (1)", timeout=200)
            with pytest.raises((OperationTimeout, OutcomeUnknown)):
                db.executemany("INSERT INTO t VALUES (?)", [(2,), (3,)], timeout=200)
            with pytest.raises(OperationTimeout), db.transaction(timeout_ms=200):
                pass
        assert db.exec("SELECT count(*) FROM t").values == [[0]]
        with db.transaction(timeout_ms=20_000):
            db.exec("INSERT INTO t VALUES (4)")
        assert db.exec("SELECT n FROM t").values == [[4]]

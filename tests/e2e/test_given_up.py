"""What was given up is never carried out, also where the worker's door is gone and everything goes through a
broker that is stopped for a while."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.sockets import Peer, SocketServer
from trunkline import Dial, connect, runtime
from trunkline import client as clients
from trunkline.connection import Connection
from trunkline.errors import OperationTimeout, OutcomeUnknown
from trunkline.wire import values
from trunkline.wire.envelope import Kind

pytestmark = pytest.mark.own_broker


def listen(peer: Peer) -> None:
    """Read on, and answer nothing."""
    while peer.read():
        pass


def close_the_door(conn: Connection) -> None:
    """As where its socket could not be made: requests go through the broker."""
    client = clients.current()
    assert client is not None
    runtime.door(client.address, conn._key).unlink()
    conn._direct.close()


@contextmanager
def stopped_broker() -> Iterator[None]:
    pid = int(values.unpack(clients.get().ask_broker(Kind.LIST)[0])["pid"])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


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

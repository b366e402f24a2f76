"""What a first hostile reader of the README found, each as a test."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import psutil
import pytest

import trunkline
from tests.support.stopping import stop
from trunkline.deadline import Deadline
from trunkline.proxy.process import current
from trunkline.wire import values
from trunkline.wire.envelope import Kind


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_a_write_that_runs_out_of_time_says_what_was_taken(family: int, tmp_path: Path) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "s"))
        listener.listen()
        place = listener.getsockname()
        address = f"tcp://127.0.0.1:{place[1]}" if family == socket.AF_INET else f"unix://{place}"
        connection = trunkline.connect(address)
        peer, _ = listener.accept()
        with peer:
            taken = connection.write(b"x" * 8_000_000, 300)
            assert 0 < taken < 8_000_000
            assert connection.stats().bytes_out == taken
            connection.close()
            assert _everything(peer) == taken


def _everything(peer: socket.socket) -> int:
    peer.settimeout(20)
    total = 0
    while chunk := peer.recv(1 << 20):
        total += len(chunk)
    return total


@pytest.mark.own_broker
def test_broker_and_worker_lost_together_are_dialled_anew() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        got: list[socket.socket] = []
        accepted = threading.Semaphore(0)

        def accept() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                got.append(peer)
                peer.sendall(b"hello")
                accepted.release()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            connection = trunkline.connect(f"tcp://127.0.0.1:{port}|reconnect=true")
            assert accepted.acquire(timeout=10)
            assert connection.read(5000) == "hello"
            _kill_all(connection)
            assert accepted.acquire(timeout=30), "nobody dialled again"
            deadline = Deadline(30)
            heard: str | bytes | None = None
            while heard != "hello" and not deadline.expired():
                try:
                    heard = connection.read(1000)
                except trunkline.BrokenError:
                    continue
            assert heard == "hello"
            assert connection.write("x") == 1
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for peer in got:
                peer.close()


def _kill_all(connection: trunkline.Connection) -> None:
    """As `pkill -9` does by a command line that broker, zygote and workers share."""
    client = current()
    assert client is not None
    info = values.unpack(client.link.ask_broker(Kind.LIST)[0])
    pid = connection.stats().pid
    assert pid is not None
    for each in (info["pid"], info["zygote"], pid):
        os.kill(each, signal.SIGKILL)


@pytest.mark.own_broker
def test_a_broker_that_was_stopped_for_long_kills_no_worker() -> None:
    connection = trunkline.connect("sqlite3://:memory:")
    connection.exec("CREATE TABLE t (n)")
    client = current()
    assert client is not None
    broker = psutil.Process(values.unpack(client.link.ask_broker(Kind.LIST)[0])["pid"])
    stop(broker.pid)
    try:
        time.sleep(12)  # longer than a silent worker lives; there is no event to wait for
    finally:
        broker.resume()
    deadline = Deadline(3)
    while not deadline.expired():
        connection.exec("INSERT INTO t VALUES (1)")
    assert connection.stats().state == "open"


def test_a_statement_that_arrives_too_late_is_not_run() -> None:
    connection = trunkline.connect("sqlite3://:memory:")
    connection.exec("CREATE TABLE k (a)")
    try:
        connection.exec("INSERT INTO k VALUES (length(?))", b"x" * 60_000_000, timeout=20)
    except trunkline.OutcomeUnknown:
        return  # which says so
    except trunkline.OperationTimeout:
        found = connection.exec("SELECT count(*) FROM k")
        assert found is not None
        assert found["values"] == [[0]]


def test_a_password_with_an_ampersand_is_not_told() -> None:
    with pytest.raises(trunkline.AddressError) as caught:
        trunkline.connect("ws://h|proxy=socks5://u:a&HUNTER2=b@h:1")
    assert "HUNTER2" not in str(caught.value)


def test_figures_outlive_close() -> None:
    connection = trunkline.connect("sqlite3://:memory:")
    connection.exec("SELECT 1")
    assert connection.stats().statements == 1
    connection.close()
    after = connection.stats()
    assert (after.statements, after.state, after.pid) == (1, "closed", None)

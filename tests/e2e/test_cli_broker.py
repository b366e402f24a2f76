"""`trunkline broker`: shared by programs that were started apart, and gone with all below it."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path

import pytest

from tests.support.commands import Command, run
from tests.support.servers import WsServer, feed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_good_order_and_everything_with_it(number: signal.Signals) -> None:
    with Command("broker") as broker, WsServer(feed(1)) as server:
        line = broker.wait_out("export TRUNKLINE_BROKER=")
        address = shlex.split(line)[1].partition("=")[2]
        folder = Path(address.removeprefix("ipc://")).parent
        assert folder.is_dir()
        with Command("dial", server.url, env={"TRUNKLINE_BROKER": address}) as client:
            client.wait_out("0")
            client.interrupt()
            assert client.end().code == 130
        server.wait_live(0)
        assert broker.process.poll() is None
        broker.process.send_signal(number)
        ended = broker.end()
    assert ended.code == 0
    assert ended.err == ""
    assert not folder.exists()


def test_it_ends_the_connections_it_still_has() -> None:
    with Command("broker") as broker, WsServer(feed(1)) as server:
        address = broker.wait_out("export").partition("=")[2]
        with Command("dial", server.url, env={"TRUNKLINE_BROKER": address}) as client:
            client.wait_out("0")
            broker.process.terminate()
            assert broker.end().code == 0
            server.wait_live(0)
            client.interrupt()
            client.end()


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "ipc://relative/broker.sock", "ipc:///x/y.sock"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    ended = run("broker", "--address", address)
    assert (ended.code, ended.out) == (1, "")
    assert len(ended.err.splitlines()) == 1
    assert "TRUNKLINE_BROKER" not in ended.err  # it is not what was given
    assert "--address" in ended.err


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = run("broker", "--address", f"ipc://{tmp_path}/file/b/broker.sock")
    assert ended.code == 1
    assert "cannot be made" in ended.err

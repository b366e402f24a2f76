"""`trunkline ps`, `top` and `kill`: what they show, what they end, and brokers that are not well."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trunkline
from tests.support.commands import Command, run
from tests.support.servers import WsServer, feed, hold
from tests.support.stopping import stop

SECRET = "s3cr3t-Pa55"


def listed() -> list[dict[str, Any]]:
    ended = run("ps", "--json")
    assert ended.code == 0, ended.err
    rows: list[dict[str, Any]] = json.loads(ended.out)
    return rows


@contextlib.contextmanager
def second_broker(folder: Path) -> Iterator[tuple[str, int]]:
    """Another broker in the same runtime folder: its address and process id."""
    address = f"ipc://{folder}/b-{'f' * 12}/broker.sock"
    with Command("broker", "--address", address) as command:
        command.wait_out("export")
        yield address, command.process.pid
        with contextlib.suppress(ProcessLookupError):
            command.process.send_signal(signal.SIGCONT)
        command.process.terminate()
        assert command.end().code == 0


@pytest.fixture
def folder() -> Path:
    return Path(os.environ["TRUNKLINE_RUNTIME"])


def test_ps_shows_a_connection_and_no_secret() -> None:
    with WsServer(feed(3)) as server:
        connection = trunkline.connect(f"{server.url}/ws?token={SECRET}|payload={SECRET}")
        assert [connection.read(5000) for _ in range(3)] == ["0", "1", "2"]
        stats = connection.stats()
        rows = listed()
        table = run("ps")
    (row,) = [row for row in rows if row["pid"] == stats.pid]
    assert row["id"] == stats.id
    assert row["state"] == "open"
    assert row["users"] == [os.getpid()]
    assert row["holders"] == 1
    assert row["memory"] > 100_000
    assert row["uptime_s"] >= 0
    assert f"ws://127.0.0.1:{server.port}" in table.out
    assert table.out.splitlines()[0].split()[:4] == ["ID", "PEER", "STATE", "PID"]
    assert SECRET not in json.dumps(rows) + table.output


def test_ps_without_a_broker_starts_none(tmp_path: Path) -> None:
    env = {"TRUNKLINE_RUNTIME": str(tmp_path / "none"), "TRUNKLINE_BROKER": None}
    text, plain = run("ps", env=env), run("ps", "--json", env=env)
    assert (text.code, text.out) == (0, "no connections: no broker is running")
    assert (plain.code, json.loads(plain.out)) == (0, [])
    assert not (tmp_path / "none").exists()


def test_ps_is_no_client_of_the_brokers_it_asks(folder: Path) -> None:
    with second_broker(folder) as (address, _):
        assert run("ps").code == 0
        from trunkline.cli.brokers import ask
        from trunkline.wire.envelope import Kind

        assert ask({address: (Kind.LIST, ())}, 5)[address]["clients"] == []


def test_a_dead_broker_is_said() -> None:
    address = "ipc:///nowhere/at/all/broker.sock"
    ended = run("ps", env={"TRUNKLINE_BROKER": address})
    assert ended.code == 0
    assert f"no broker runs at {address}" in ended.err


def test_a_broker_address_that_is_none_is_said() -> None:
    ended = run("ps", env={"TRUNKLINE_BROKER": "tcp://somewhere"})
    assert ended.code == 0
    assert "must look like ipc://" in ended.err


def test_a_broker_that_hangs_is_named_and_not_waited_for(folder: Path) -> None:
    with second_broker(folder) as (address, pid), WsServer(hold) as server:
        connection = trunkline.connect(server.url)
        stop(pid)
        ended = run("ps")
        assert connection.write("still here") == 10
    assert ended.code == 1
    assert f"the broker at {address} does not answer" in ended.err
    assert f"127.0.0.1:{server.port}" in ended.out


def test_with_several_brokers_an_id_says_which(folder: Path) -> None:
    with (
        second_broker(folder) as (address, _),
        WsServer(hold) as server,
        Command("dial", server.url, env={"TRUNKLINE_BROKER": address}) as command,
    ):
        server.wait_live(1)
        (row,) = [row for row in listed() if row["broker"] == address]
        assert row["id"] == "ffff:1"
        assert run("kill", "ffff:1").out == "ended ffff:1"
        ended = command.end()
    assert ended.code == 1
    assert "Traceback" not in ended.output


def test_kill_ends_a_connection_for_good() -> None:
    with WsServer(hold) as server:
        connection = trunkline.Dial(f"{server.url}|reconnect=true")
        assert connection is not None
        number = connection.stats().id
        ended = run("kill", number)
        assert (ended.code, ended.out) == (0, f"ended {number}")
        assert connection.read(10_000) == ""
        server.wait_live(0)
        assert run("kill", number).code == 1


def test_kill_says_which_ids_are_not_there() -> None:
    with WsServer(hold) as server:
        connection = trunkline.connect(server.url)
        number = connection.stats().id
        ended = run("kill", "999999", number, "nonsense")
    assert (ended.code, ended.out) == (1, f"ended {number}")
    assert [line.split()[5] for line in ended.err.splitlines()] == ["999999;", "nonsense;"]


def test_kill_all() -> None:
    with WsServer(hold) as server:
        kept = [trunkline.connect(server.url) for _ in range(3)]
        server.wait_live(len(kept))
        assert run("kill", "--all").code == 0
        server.wait_live(0)


def test_top_prints_tables_where_there_is_no_terminal() -> None:
    with WsServer(hold) as server:
        connection = trunkline.connect(server.url)
        ended = run("top", "-n", "2")
        del connection
    assert ended.code == 0
    assert ended.out.count("PEER") == 2
    assert ended.out.count(f"127.0.0.1:{server.port}") == 2


def test_top_is_ended_by_ctrl_c() -> None:
    with Command("top") as command:
        command.wait_out("connections")
        command.interrupt()
        ended = command.end()
    assert ended.code == 130
    assert "Traceback" not in ended.output


def test_what_is_no_brokers_folder_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "b-1").write_text("no folder")
    ended = run("ps", env={"TRUNKLINE_RUNTIME": str(tmp_path), "TRUNKLINE_BROKER": None})
    assert (ended.code, ended.out) == (0, "no connections: no broker is running")

"""`trunkline ps`, `top` and `kill`: what they show, what they end, and brokers that are not well."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import re
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trunkline
from tests.support.commands import Command, run
from tests.support.servers import WsServer, feed, hold
from tests.support.stopping import stop
from tests.support.waiting import until
from trunkline.proxy.discovery import Found, find_brokers, find_left_over_workers
from trunkline.wire.endpoint import SOCKET, alive

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
    assert (text.code, plain.code) == (0, 0)
    assert all(str(tmp_path) not in row["broker"] for row in json.loads(plain.out))
    assert not (tmp_path / "none").exists()


def test_ps_is_no_client_of_the_brokers_it_asks(folder: Path) -> None:
    with second_broker(folder) as (address, _):
        assert run("ps").code == 0
        from trunkline.proxy.brokers import ask
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
        # Another worker of this run may have a broker of the same name, in its folder.
        assert re.fullmatch(r"ffff(~[0-9a-f]+)?:1", row["id"])
        assert run("kill", row["id"]).out == f"ended {row['id']}"
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


def test_kill_tells_the_program_once_and_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "trunkline")
    reason = "it was ended by `trunkline kill`"

    def errors() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]

    with WsServer(hold) as server:
        connection = trunkline.connect(f"{server.url}|reconnect=true")
        second = trunkline.connect(connection.fd())
        number = connection.stats().id
        # The second order may find the connection still closing: the program must be told once all the same.
        assert f"ended {number}" in run("kill", number, number).out
        with pytest.raises(trunkline.BrokenError, match="has ended"):
            connection.read(10_000)
        until(errors, "the line in the log")
        expected = f"the connection to ws://127.0.0.1:{server.port} has ended: {reason}; dial again"
        assert errors() == [expected]
        until(lambda: trunkline.last_error() == expected, "the last error")
        with pytest.raises(trunkline.TrunklineError, match=reason):
            second.write("x")
        with pytest.raises(trunkline.DeadHandle, match=reason):
            trunkline.connect(connection.fd())
    database = trunkline.connect("sqlite3://:memory:")
    assert run("kill", database.stats().id).code == 0
    with pytest.raises(trunkline.TrunklineError, match=reason):
        database.exec("SELECT 1")
    until(lambda: len(errors()) == 2, "the line of the database")
    until(lambda: reason in str(trunkline.last_error()), "the last error")


@pytest.mark.parametrize("options", ["", "|reconnect=true"])
def test_kill_ends_a_dial_that_waits(options: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"ws://127.0.0.1:{silent.getsockname()[1]}{options}"
        with concurrent.futures.ThreadPoolExecutor() as pool:
            dial = pool.submit(trunkline.Dial, address, 90)
            link, _ = silent.accept()
            with link:
                (row,) = [row for row in listed() if row["peer"] == address.partition("|")[0]]
                assert run("kill", row["id"]).code == 0
                assert dial.result(30) is None
    assert (
        trunkline.last_error() == f"{row['peer']} was not opened: it was ended by `trunkline kill`"
    )


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
        ended = run("kill", "--all")
        server.wait_live(0)
    assert ended.code == 0
    assert ended.out.splitlines()[-1].startswith("3 connections ended")
    assert run("kill", "--all").out.startswith("no connections to end")


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
    assert (ended.code, str(tmp_path) in ended.output) == (0, False)


def place(environment: Path, **changes: str) -> dict[str, str | None]:
    """The environment of a program that has its runtime folder below `environment`, as no variable of ours
    names it."""
    return {
        "TRUNKLINE_RUNTIME": None,
        "TRUNKLINE_BROKER": None,
        "XDG_RUNTIME_DIR": None,
        "TMPDIR": str(environment),
        **changes,
    }


@pytest.mark.own_broker
def test_brokers_of_other_environments_are_seen_and_their_workers_are_no_leftovers() -> None:
    """A service has no XDG_RUNTIME_DIR, a login shell has one, and a third shell must see both."""
    with (
        tempfile.TemporaryDirectory(prefix="tl-") as name,
        WsServer(hold) as server,
    ):
        root = Path(name)
        service = place(root)
        login = place(root, XDG_RUNTIME_DIR=name)
        other = place(root, TRUNKLINE_RUNTIME=str(root / "other"))
        with (
            Command("dial", server.url, env=service) as of_service,
            Command("dial", server.url, env=login) as of_login,
            Command("dial", server.url, env=other) as of_other,
        ):
            server.wait_live(3)
            for env in (service, login, other):
                rows = [
                    row
                    for row in json.loads(run("ps", "--json", env=env).out)
                    if name in row["broker"]
                ]
                places = {
                    str(Path(row["broker"].removeprefix("ipc://")).parents[1]) for row in rows
                }
                assert places == {
                    f"{name}/trunkline-{os.getuid()}",
                    f"{name}/trunkline",
                    f"{name}/other",
                }
            workers = {str(row["pid"]) for row in rows}
            lines = [
                line for line in run("doctor", env=other).out.splitlines() if "leftovers" in line
            ]
            assert not workers & set(" ".join(lines).split())
            shown = {
                str(Path(row["broker"].removeprefix("ipc://")).parents[1]): row["id"]
                for row in rows
            }
            assert shown[f"{name}/other"] == "1"  # the folder that this environment names
            assert run("top", "-n", "1", env=other).out.count(f"127.0.0.1:{server.port}") == 3
            there = shown[f"{name}/trunkline"]
            assert run("kill", there, env=service).out == f"ended {there}"
            assert of_login.end().code == 1
            server.wait_live(2)
            ended = run("kill", "--all", env=other)
            assert ended.out.splitlines()[0] == "ended 1"
            assert ended.out.splitlines()[1].startswith("1 connection ended; ")
            assert "elsewhere left alone" in ended.out
            assert of_other.end().code == 1
            server.wait_live(1)
            of_service.process.terminate()
            of_service.end()


@pytest.mark.own_broker
def test_a_worker_is_left_over_only_when_its_broker_is_dead() -> None:
    """Nobody brings the broker back here: the program that used the connection hangs."""
    with tempfile.TemporaryDirectory(prefix="tl-") as name, WsServer(hold) as server:
        env = place(Path(name))
        with Command("dial", server.url, env=env) as command:
            server.wait_live(1)
            (row,) = [
                row for row in json.loads(run("ps", "--json", env=env).out) if name in row["broker"]
            ]
            folder = Path(row["broker"].removeprefix("ipc://")).parent
            (broker,) = [found.pid for found in find_brokers_of(folder)]
            assert row["pid"] not in find_left_over_workers(set())
            stop(broker)
            ended = run("ps", env=env)
            assert f"the broker at {row['broker']} does not answer" in ended.err
            assert row["pid"] not in find_left_over_workers(set())
            stop(command.process.pid)
            os.kill(broker, signal.SIGKILL)
            until(lambda: not alive(f"ipc://{folder / SOCKET}"), "the end of the killed broker")
            assert row["pid"] in find_left_over_workers(set())
            command.process.kill()
            server.wait_live(0)


def find_brokers_of(folder: Path) -> list[Found]:
    return [found for found in find_brokers()[0] if found.address == f"ipc://{folder}/broker.sock"]

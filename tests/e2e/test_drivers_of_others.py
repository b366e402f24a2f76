"""Drivers that other distributions install: the example's two, and some that break."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import trunkline
from tests.support.commands import Command, run
from tests.support.distributions import install
from tests.support.programs import until
from tests.support.sockets import SocketServer, echo
from trunkline import Connection, Dial, connect

pytestmark = pytest.mark.own_broker

_EXAMPLE = Path(__file__).parents[2] / "examples" / "echo_driver"
_OTHERS = """
import os
from echo_driver import EchoDriver, NotesDriver

class Quiet(EchoDriver):
    lost_is_none = True

class Crash(EchoDriver):
    async def send(self, data, deadline):
        if data == "crash":
            os._exit(3)
        return await super().send(data, deadline)

class CrashNotes(NotesDriver):
    def execute(self, sql, binds):
        if sql == "CRASH":
            os._exit(3)
        return super().execute(sql, binds)
"""
_DRIVERS = {
    "quiet": "others:Quiet",
    "crash+test": "others:Crash",
    "crash-notes": "others:CrashNotes",
    "no-class": "others:os",
    "no-module": "missing_module:Driver",
    "tcp": "others:Crash",
}


@pytest.fixture(autouse=True)
def _installed(_no_leaks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    project = tomllib.loads((_EXAMPLE / "pyproject.toml").read_text())["project"]
    (tmp_path / "echo_driver.py").write_text((_EXAMPLE / "echo_driver.py").read_text())
    install(tmp_path, "echo_driver", project["entry-points"]["trunkline.drivers"], monkeypatch)
    (tmp_path / "others.py").write_text(_OTHERS)
    install(tmp_path, "others", _DRIVERS, monkeypatch)


def works(conn: Connection) -> bool:
    return conn.write("well") == 4 and conn.read(5000) == "well"


def test_a_stream_is_read_and_written() -> None:
    with connect("echo://desk?greeting=good%20day|payload=first") as conn:
        assert [conn.read(5000), conn.read(5000)] == ["good day", "first"]
        assert works(conn)
        assert conn.write(b"\xff") == 1
        assert conn.read(5000) == b"\xff"
        assert conn.read(-1) is None
        assert repr(conn).endswith("echo://desk open>")
        stats = conn.stats()
    assert (stats.scheme, stats.kind, stats.lost_is_none) == ("echo", "stream", False)
    assert (stats.messages_in, stats.dropped) == (4, 0)


def test_a_stream_executes_nothing_and_a_database_is_not_read() -> None:
    with (
        connect("echo://desk") as stream,
        pytest.raises(trunkline.Unsupported, match="echo:// has no exec"),
    ):
        stream.exec("GET", 1)
    with connect("notes:///desk") as notes:
        with pytest.raises(trunkline.Unsupported, match="notes:// has no read"):
            notes.read(5000)
        with pytest.raises(trunkline.Unsupported, match="notes:// has no write"):
            notes.write("x")


@pytest.mark.parametrize(("scheme", "lost"), [("echo", ""), ("quiet", None)])
def test_a_lost_link_reads_as_the_driver_says(scheme: str, lost: str | None) -> None:
    conn = Dial(f"{scheme}://desk")
    assert conn is not None
    assert conn.write("bye") == 3
    assert [conn.read(5000), conn.read()] == [lost, lost]
    other = Dial(conn.fd())
    assert other is not None
    assert other.read() == lost


def test_a_lost_link_is_re_established_and_the_payload_sent_again() -> None:
    with connect("echo://desk?greeting=hello|reconnect=true&interval=1&payload=subscribe") as conn:
        assert [conn.read(5000), conn.read(5000)] == ["hello", "subscribe"]
        assert conn.write("bye") == 3
        with pytest.raises(trunkline.BrokenError):
            conn.read(5000)
        until(lambda: conn.stats().reconnects == 1, "the link")
        messages = iter(conn)
        assert [next(messages), next(messages)] == ["hello", "subscribe"]
        assert works(conn)


def test_the_buffer_is_as_long_as_the_option_says() -> None:
    with connect("echo://desk|buffer=2") as conn:
        for text in "abcd":
            conn.write(text)
        until(lambda: conn.stats().dropped == 2, "the drops")
        got = []
        while (text := conn.read(200)) is not None:
            got.append(text)
        # Of what had been sent ahead, one that is read before it can be taken back was not dropped after all.
        assert got[-2:] == ["c", "d"]
        until(lambda: conn.stats().read == len(got), "the last acknowledgement")
        assert conn.stats().dropped == 4 - len(got)


def set_and_fail(conn: Connection) -> None:
    with conn.transaction():
        conn.exec("SET", "a", 2)
        conn.exec("DROP")


def test_statements_are_executed() -> None:
    with connect("notes:///desk") as conn:
        assert conn.exec("SET", "a", [1, "x"]) == {"columns": [], "values": [], "affected": 1}
        assert conn.exec("GET", "a") == {"columns": ["value"], "values": [[[1, "x"]]]}
        with pytest.raises(trunkline.StatementError, match="notes take SET"):
            conn.exec("DROP")
        with connect(conn.fd()) as other:
            assert other.exec("GET", "a")["values"] == [[[1, "x"]]]
            with pytest.raises(trunkline.StatementError):
                set_and_fail(conn)
            assert other.exec("GET", "a")["values"] == [[[1, "x"]]]
        assert conn.stats().kind == "database"


@pytest.mark.parametrize("reconnect", ["false", "true"])
def test_a_stream_driver_that_crashes(reconnect: str) -> None:
    with connect("echo://neighbour") as neighbour:
        conn = Dial(f"crash+test://desk?greeting=hello|interval=1&reconnect={reconnect}")
        assert conn is not None
        assert conn.read(5000) == "hello"
        assert conn.write("crash") == 0
        assert conn.read(5000) == ""
        if reconnect == "true":
            until(lambda: conn.read(-1) == "hello", "the replacement")
            assert works(conn)
            assert conn.stats().incarnation == 2
        else:
            assert conn.read() == ""
            assert "status 3" in (conn.stats().last_error or "")
        assert works(neighbour)


@pytest.mark.parametrize("reconnect", ["false", "true"])
def test_an_executing_driver_that_crashes(reconnect: str) -> None:
    with connect(f"crash-notes:///desk|reconnect={reconnect}") as conn:
        conn.exec("SET", "a", 1)
        with pytest.raises(trunkline.OutcomeUnknown):
            conn.exec("CRASH")
        if reconnect == "true":
            assert conn.exec("GET", "a")["values"] == []
        else:
            with pytest.raises(trunkline.DeadHandle, match="status 3"):
                conn.exec("GET", "a")


def test_trunklines_own_schemes_are_not_replaced() -> None:
    with SocketServer(echo) as server, connect(server.url) as conn:
        assert works(conn)
        conn.write("crash")
        assert conn.read(5000) == "crash"


@pytest.mark.parametrize(
    ("address", "error", "sentence"),
    [
        (
            "no-class://h",
            trunkline.DialError,
            "others:os is registered for no-class:// and is no StreamDriver or ExecDriver class",
        ),
        (
            "no-module://h",
            trunkline.MissingLibrary,
            "no-module:// needs a library that is not installed (missing_module): "
            "install the module missing_module",
        ),
    ],
)
def test_what_is_registered_and_cannot_be_used(
    address: str, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        connect(address)
    assert str(caught.value) == sentence


def test_the_command_line_dials_them_too() -> None:
    with Command("dial", "echo://desk") as command:
        command.say("hello")
        command.wait_out("hello")
    ended = run("dial", "notes:///desk", "-e", "GET")
    assert (ended.code, "notes take SET" in ended.err) == (1, True)

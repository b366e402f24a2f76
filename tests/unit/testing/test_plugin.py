"""The fixtures that every pytest has in whose environment Trunkline is installed."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

import trunkline
from trunkline.testing import Exchange
from trunkline.testing.plugin import MakeFaultProxy

_HEAVY = ("zmq", "msgpack", "websockets", "trunkline.proxy", "trunkline.address", "trunkline.wire")
_WITHOUT_A_FIXTURE = """
import sys

def test_nothing_of_trunkline():
    assert "trunkline.testing.plugin" in sys.modules
    assert not [name for name in {heavy!r} if name in sys.modules]
    ours = {{name for name in sys.modules if name.split(".")[0] == "trunkline"}}
    assert ours == {{"trunkline", "trunkline.testing", "trunkline.testing.plugin"}}
"""
_WITH_FIXTURES = """
import pytest, socket

def test_fails(trunkline_ws, trunkline_fault_proxy):
    proxy = trunkline_fault_proxy(trunkline_ws.port)
    socket.create_connection(("127.0.0.1", proxy.port)).close()
    raise ZeroDivisionError

def test_an_answer_fails(trunkline_ws):
    trunkline_ws.failures.append(KeyError("of the answer"))

def test_leaves_nothing(recwarn):
    import threading, gc
    gc.collect()
    assert threading.enumerate() == [threading.main_thread()]
"""


def pytest_in(folder: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A run of pytest on one file, with the plugins that are installed and without our own settings."""
    (folder / "test_it.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *options,
        "test_it.py",
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_an_exchange_in_a_line(broker: str, trunkline_ws: Exchange) -> None:
    with trunkline.connect(trunkline_ws.url) as feed:
        trunkline_ws.say("tick")
        assert feed.read(10_000) == "tick"
        assert feed.write("subscribe") == 9
        assert trunkline_ws.wait_written(1) == ["subscribe"]


def test_a_fault_proxy_in_a_line(
    broker: str, trunkline_ws: Exchange, trunkline_fault_proxy: MakeFaultProxy
) -> None:
    proxy, other = (
        trunkline_fault_proxy(trunkline_ws.port),
        trunkline_fault_proxy(trunkline_ws.port, seed=7),
    )
    assert proxy.port != other.port
    with trunkline.connect(f"ws://{proxy.address}") as feed:
        trunkline_ws.say("tick")
        assert feed.read(10_000) == "tick"
        proxy.reset()
        with pytest.raises(trunkline.BrokenError):
            feed.read(10_000)


def test_a_run_without_the_fixtures_loads_nothing_else(tmp_path: Path) -> None:
    run = pytest_in(tmp_path, _WITHOUT_A_FIXTURE.format(heavy=_HEAVY))
    assert (run.returncode, "1 passed" in run.stdout) == (0, True), run.stdout + run.stderr


def test_fixtures_of_failing_tests_leave_nothing(tmp_path: Path) -> None:
    run = pytest_in(tmp_path, _WITH_FIXTURES, "-p", "no:xdist")
    assert "1 failed, 2 passed, 1 error" in run.stdout, run.stdout + run.stderr
    assert "ZeroDivisionError" in run.stdout
    assert "KeyError: 'of the answer'" in run.stdout


def test_the_plugin_can_be_switched_off(tmp_path: Path) -> None:
    source = "import sys\ndef test_it():\n    assert 'trunkline' not in sys.modules\n"
    run = pytest_in(tmp_path, source, "-p", "no:trunkline")
    assert run.returncode == 0, run.stdout + run.stderr


def test_an_exchange_holds_no_port_at_its_end(trunkline_ws: Exchange) -> None:
    trunkline_ws.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", trunkline_ws.port), 1)

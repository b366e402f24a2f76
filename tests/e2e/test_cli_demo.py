"""`trunkline demo`: its sums come out, a difference is told, and Ctrl-C leaves nothing behind.

That no process, socket file or folder is left is checked after each test here by the leak fixture.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Command, run
from trunkline import Dial
from trunkline.demo import feed as demo_feed
from trunkline.demo.certificate import make_certificate
from trunkline.demo.ledger import Ledger
from trunkline.demo.report import Report, make_report


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, to see what is left in it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.mark.timeout(120)
def test_the_demo_adds_up(temporary: Path) -> None:
    ended = run("demo", "--plain", "--seconds", "6", "--seed", "7")
    assert ended.code == 0, ended.output
    assert ended.out.splitlines()[-1] == "OK: all figures add up"
    for line in (
        "wss://127.0.0.1",
        "BTCUSDT",
        "kill -9",
        "a new one takes over",
        "sent = received + dropped",
    ):
        assert line in ended.out
    assert list(temporary.iterdir()) == []


def test_the_exchange_says_nothing_behind_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the strategy takes seconds to settle its figures; what came then was never read."""
    monkeypatch.setattr(demo_feed, "HEARTBEAT_S", 0.0)
    feed = demo_feed.Feed(None, 1)
    feed.server.start()
    try:
        address = (
            f"{feed.server.url}/ws|compress=gzip&mode=recv&payload={json.dumps({'sub': 'tickers'})}"
        )
        with Dial(address) as connection:
            while "ping" not in json.loads(connection.read(10_000)):
                pass
            feed.finish()
            while "end" not in (message := json.loads(connection.read(10_000))):
                pass
            assert connection.read(20 * int(1000 * demo_feed.TURN_S)) is None
            assert connection.stats().messages_in == message["n"] == feed.ledger.sent[1]
    finally:
        feed.server.close()


@pytest.mark.parametrize("line", ["exchange", "dialled", "kill -9"])
def test_ctrl_c_at_any_time_ends_it_and_leaves_nothing(line: str, temporary: Path) -> None:
    with Command("demo", "--plain", "--seconds", "8") as command:
        command.wait_out(line)
        command.interrupt()
        ended = command.end()
    assert ended.code == 130
    assert "Traceback" not in ended.output
    assert list(temporary.iterdir()) == []


def test_sigterm_ends_it_like_ctrl_c(temporary: Path) -> None:
    with Command("demo", "--plain") as command:
        command.wait_out("dialled")
        command.process.terminate()
        ended = command.end()
    assert ended.code == 130
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("line", ["exchange", "dialled", "Tickers"])
def test_when_the_demo_is_killed_the_rest_ends_by_itself(line: str, temporary: Path) -> None:
    with Command("demo", "--plain") as command:
        command.wait_out(line)
        command.process.kill()
        command.end()


def test_a_reader_that_leaves_ends_it_quietly(temporary: Path) -> None:
    command = [sys.executable, "-m", "trunkline", "demo", "--plain"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as demo:
        assert demo.stdout
        assert demo.stderr
        assert demo.stdout.readline().startswith(b"exchange")
        demo.stdout.close()
        errors = demo.stderr.read()
        assert demo.wait(30) == 0
    assert errors == b""
    assert list(temporary.iterdir()) == []


def test_a_certificate_is_made_by_either_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_certificate(tmp_path)
    assert made is not None
    assert made.key.stat().st_mode & 0o077 == 0
    monkeypatch.setitem(sys.modules, "trustme", None)
    again = make_certificate(tmp_path)
    assert again is None or again.server_context()
    monkeypatch.setenv("PATH", "")
    assert make_certificate(tmp_path) is None


@pytest.fixture
def without_websockets(tmp_path: Path) -> dict[str, str | None]:
    """The environment of a program that does not find the package websockets."""
    hidden = tmp_path / "websockets.py"
    hidden.write_text("raise ModuleNotFoundError('hidden', name=__name__)\n")
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path[1:]])}


def test_without_its_extra_the_demo_says_what_to_install(
    without_websockets: dict[str, str | None],
) -> None:
    ended = run("demo", "--plain", env=without_websockets)
    sentence = "trunkline: the demo needs the package websockets: pip install 'trunkline[demo]'"
    assert (ended.code, ended.output) == (1, sentence)


def test_without_the_demos_extra_the_doctor_leaves_wss_out(
    without_websockets: dict[str, str | None],
) -> None:
    ended = run("doctor", "--json", env=without_websockets)
    (found,) = [each for each in json.loads(ended.out) if each["name"] == "wss"]
    assert ended.code == 0
    assert found["status"] == "ok"
    assert (
        found["text"]
        == "not tried: the package websockets is not here; pip install 'trunkline[demo]' brings it"
    )


def report(**changes: Any) -> Report:
    """Two links: 5 sent, 1 dropped and 1 lost on the first; 3 sent on the second."""
    ledger = Ledger(sent={1: 5, 2: 3}, ticks={1: ("A", 1.5), 2: ("B", 2.5)})
    result: dict[str, Any] = {
        "seen": {"1": [2, 3, 4], "2": [1, 2, 3]}, "messages_in": 7, "read": 6, "dropped": 1, "reconnects": 1,
        "incarnation": 2, "ticks": 2, "writer": {"stored": 2},
    }  # fmt: skip
    stored = changes.pop("stored", [(1, 1, "A", 1.5), (2, 2, "B", 2.5)])
    return make_report(ledger, {**result, **changes}, stored, kills=1)


def test_a_report_that_adds_up() -> None:
    made = report()
    assert made.ok
    assert [(each.missing, each.lost) for each in made.links] == [(1, 1), (0, 0)]
    assert made.totals["sent"] == 8
    assert made.totals["lost in outages"] == 1


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"dropped": 0}, "messages missing in between and not dropped, or dropped and not missing"),
        ({"dropped": 3}, "messages missing in between and not dropped, or dropped and not missing"),
        ({"messages_in": 8}, "sent = received + dropped + lost in outages"),
        ({"read": 7}, "received = read, as the connection counts"),
        ({"seen": {"1": [2, 4, 3], "2": [1, 2, 3]}}, "messages received twice or out of order"),
        ({"seen": {"1": [2, 3, 4], "2": [1, 2, 2, 3]}}, "messages received twice or out of order"),
        ({"reconnects": 2}, "links seen by the exchange = 1 + reconnected"),
        ({"incarnation": 1}, "workers replaced = workers killed"),
        ({"stored": [(1, 1, "A", 1.5)]}, "ticks received = ticks stored"),
        (
            {"stored": [(1, 1, "A", 1.5), (2, 2, "B", 9.9)]},
            "ticks stored as the exchange made them",
        ),
        (
            {"stored": [(1, 1, "A", 1.5), (1, 1, "A", 1.5)]},
            "ticks stored as the exchange made them",
        ),
    ],
)
def test_every_kind_of_difference_is_found(changes: dict[str, Any], wrong: str) -> None:
    made = report(**changes)
    assert not made.ok
    assert wrong in [check.text for check in made.checks if not check.holds]

"""The loops of the README do what it says, through an outage, and say no more than a few lines about it."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection

from tests.support.servers import WsServer
from tests.support.sockets import Peer, SocketServer
from tests.support.strategies import RunningStrategy
from tests.support.waiting import until
from tests.support.websocket_peer import upgrade

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
FEED = "wss://stream.binance.com:9443/ws/!ticker@arr"


def loops() -> list[str]:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return [block for block in blocks if FEED in block]


def ticks(peer: Peer) -> None:
    """Three messages; the first link then breaks, the second stays."""
    upgrade(peer)
    for number in range(3):
        text = f"tick {peer.number} {number}".encode()
        peer.send(bytes([0x81, len(text)]) + text)
    if peer.number:
        peer.stopping.wait()
    else:
        peer.reset()


@pytest.mark.own_broker
@pytest.mark.parametrize("number", [0, 1])
def test_the_loops_go_on_through_an_outage(number: int, tmp_path: Path) -> None:
    loop = loops()[number]
    with SocketServer(ticks) as server:
        code = loop.replace(FEED, server.url.replace("tcp", "ws")).replace(
            "print(message)", "print(message, flush=True)"
        )
        output = tmp_path / "output"
        with output.open("w") as file:
            program = subprocess.Popen(
                [sys.executable, "-c", code], cwd=tmp_path, stdout=file, stderr=file
            )
        wanted = [f"tick {link} {n}" for link in range(2) for n in range(3)]

        def has_all() -> bool:
            if number:
                return all(tick in output.read_text() for tick in wanted)
            return _stored(tmp_path / "ticks.db") == wanted

        try:
            until(has_all, "all six messages", 30)
        finally:
            program.terminate()
            program.wait(20)
        said = [line for line in output.read_text().splitlines() if not line.startswith("tick ")]
        assert len(said) < 8, said


@pytest.mark.own_broker
def test_the_loop_with_a_signed_login_logs_in_as_soon_as_the_link_is_back(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "fmz.md").read_text(encoding="utf-8")
    (loop,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        if "signed_login" in block
    )
    links: list[ServerConnection] = []

    def behave(ws: ServerConnection) -> None:
        """Silent until the login comes; the first links break after that."""
        links.append(ws)
        number = len(links) - 1
        for login in ws:
            ws.send(f"welcome {number} {login!r}")
            if number < 6:
                server.drop_all()

    with WsServer(behave) as server:
        code = loop.replace("wss://ws.example.com", server.url)
        code = code.replace("|reconnect=true", "|reconnect=true&interval=100&maxInterval=300")
        code = code.replace(
            "read(5000)", "read(600_000)"
        )  # a login must not wait for the end of a read
        script = tmp_path / "login.py"
        script.write_text(
            "def signed_login(): return 'me'\ndef main():\n"
            + textwrap.indent(code + "    if message: Log(message)\n", "    ")
        )
        with RunningStrategy(script, "--data", str(tmp_path)) as running:
            running.wait_line("welcome 6 'me'")


def _stored(path: Path) -> list[str]:
    if not path.exists():
        return []
    with sqlite3.connect(path) as database:
        try:
            rows = database.execute("SELECT text FROM ticks ORDER BY rowid").fetchall()
        except sqlite3.OperationalError:
            rows = []
    database.close()
    return [text for (text,) in rows]

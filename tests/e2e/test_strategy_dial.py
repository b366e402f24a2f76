"""Strategies with real connections: stopped inside a call, closing in onexit, and their own database."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.servers import WsServer, echo_messages, hold
from tests.support.strategies import RunningStrategy

pytestmark = pytest.mark.own_broker

Start = Callable[..., RunningStrategy]

BLOCKED = {
    "read()": "Log(ws.read())",
    "read(60000)": "ws.read(60_000)",
    "read(-1)": "ws.read(-1)",
    "exec": "Dial('sqlite3://:memory:').exec('"
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n')",
}


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def begin(text: str, *arguments: str) -> RunningStrategy:
        script = tmp_path / "strategy.py"
        script.write_text(dedent(text))
        return RunningStrategy(
            script, "--data", str(tmp_path / "data"), arguments=arguments, cwd=tmp_path
        )

    return begin


@pytest.mark.parametrize("call", BLOCKED.values(), ids=BLOCKED.keys())
def test_ctrl_c_ends_a_blocked_call_and_onexit_can_still_use_the_connection(
    start: Start, call: str
) -> None:
    text = f"""
import sys
def main():
    global ws
    ws = Dial(sys.argv[1])
    Log("ready")
    while True:
        {call}
def onexit():
    Log("wrote", ws.write("goodbye"))
    ws.close()
"""
    with WsServer(hold) as server, start(text, server.url) as strategy:
        strategy.wait_line("ready")
        # As a terminal does it: to every process of the group, whatever the strategy started included.
        os.killpg(strategy.process.pid, signal.SIGINT)
        assert strategy.end() == 130
        assert server.wait_received(1) == ["goodbye"]
    assert "wrote 7" in strategy.output
    assert "Traceback" not in strategy.output


def test_the_strategys_own_database_outlives_the_run(start: Start) -> None:
    text = """
        def main():
            DBExec("CREATE TABLE IF NOT EXISTS runs (n INTEGER)")
            DBExec("INSERT INTO runs VALUES (?)", 1)
            Log("rows", DBExec("SELECT sum(n) AS total FROM runs")["values"])
            Log("memory", DBExec(":SELECT name FROM sqlite_master")["values"])
            Log("bad", DBExec("SELECT nonsense"))
    """
    for total in (1, 2):
        with start(text) as strategy:
            assert strategy.end() == 0
        assert f"rows [[{total}]]" in strategy.output
        assert "memory []" in strategy.output
        assert "bad None" in strategy.output
        assert "ERROR" in strategy.output


def test_why_a_dial_failed_is_an_error_row_and_can_be_filtered(start: Start) -> None:
    text = """
        def main():
            Log(Dial("tcp://127.0.0.1:1", 5), GetLastError() is not None, GetLastError())
            SetErrorFilter("127.0.0.1:1")
            Log(Dial("tcp://127.0.0.1:1", 5), GetLastError() is not None)
    """
    with start(text) as strategy:
        assert strategy.end() == 0
    assert "None True None" in strategy.output
    assert sum("ERROR" in line for line in strategy.lines) == 1


def test_a_manager_and_a_child_of_a_strategy_keep_nothing_from_ending(start: Start) -> None:
    text = """
        import multiprocessing, sys, time
        def child(ws):
            time.sleep(0.5)
            print("written", ws.write("late"), flush=True)
        def main():
            context = multiprocessing.get_context("fork")
            global manager, ws
            manager = context.Manager()
            ws = Dial(sys.argv[1])
            context.Process(target=child, args=(ws,)).start()
            Log("done")
    """
    with WsServer(echo_messages) as server, start(text, server.url) as strategy:
        assert strategy.end() == 0
        assert server.wait_received(1) == ["late"]
    assert "written 4" in strategy.output


def test_a_data_folder_that_cannot_be_used_is_told_in_a_row(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    script = tmp_path / "strategy.py"
    script.write_text("def main():\n    Log(_G('a', 1), DBExec('SELECT 1'), DBExec(':SELECT 1'))\n")
    with RunningStrategy(script, "--data", str(tmp_path / "file"), cwd=tmp_path) as strategy:
        assert strategy.end() == 0
    assert strategy.output.count("give --data DIR or set TRUNKLINE_DATA") == 2
    assert "None None {'columns'" in strategy.output

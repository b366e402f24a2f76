"""How a strategy ends when it is told to: signals at every point of its life, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.strategies import RunningStrategy

Start = Callable[..., RunningStrategy]

LOOPS = {
    "sleeping": "Sleep(60_000)",
    "busy": "pass",
    "reading": "os.read(silent, 1)",
    "retrying": "_C(lambda: None)",
    "careless": """
        try:
            Sleep(60_000)
        except Exception as e:
            Log("swallowed", e)
    """,
    "waiting for a thread": "threading.Event().wait()",
}


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a script's text as a strategy of its own process."""

    def begin(text: str, *options: str, **env: str) -> RunningStrategy:
        script = tmp_path / "strategy.py"
        script.write_text(dedent(text))
        return RunningStrategy(
            script,
            "--data",
            str(tmp_path / "data"),
            *options,
            env={**os.environ, **env},
            cwd=tmp_path,
        )

    return begin


def _looping(body: str) -> str:
    return f"""
import os, threading
silent, _ = os.pipe()
def main():
    Log("ready")
    while True:
        {body.strip()}
def onexit():
    Log("onexit")
    Sleep(10)
    Log("onexit done")
"""


@pytest.mark.parametrize("body", LOOPS.values(), ids=LOOPS.keys())
def test_a_stop_ends_main_wherever_it_is_and_runs_onexit(start: Start, body: str) -> None:
    with start(_looping(body)) as strategy:
        strategy.wait_line("ready")
        strategy.signal(signal.SIGTERM)
        assert strategy.end() == 143
    assert "onexit done" in strategy.output
    assert "Traceback" not in strategy.output
    assert "swallowed" not in strategy.output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_the_exit_code_names_the_signal(start: Start, number: int, code: int) -> None:
    with start(_looping("Sleep(60_000)")) as strategy:
        strategy.wait_line("ready")
        strategy.signal(number)
        assert strategy.end() == code
    assert "onexit done" in strategy.output


def test_a_stop_before_main_runs_onexit_too(start: Start) -> None:
    text = """
        def onexit(): Log("onexit")
        def main(): Log("main")
        Log("ready")
        Sleep(60_000)
    """
    with start(text) as strategy:
        strategy.wait_line("ready")
        strategy.signal(signal.SIGINT)
        assert strategy.end() == 130
    assert "onexit" in strategy.output
    assert "main" not in strategy.output


def test_cleaning_up_in_a_finally_block_is_not_disturbed(start: Start) -> None:
    text = """
        def main():
            try:
                Log("ready")
                Sleep(60_000)
            finally:
                for number in range(100): Log("cleaning", number)
    """
    with start(text) as strategy:
        strategy.wait_line("ready")
        strategy.signal(signal.SIGTERM)
        assert strategy.end() == 143
    assert "cleaning 99" in strategy.output


def test_a_script_may_catch_the_stop_by_its_name(start: Start) -> None:
    text = """
        def main():
            try:
                Log("ready")
                Sleep(60_000)
            except StopError as stop:
                Log("caught", stop)
    """
    with start(text) as strategy:
        strategy.wait_line("ready")
        strategy.signal(signal.SIGTERM)
        assert strategy.end() == 143
    assert "caught stopped by SIGTERM" in strategy.output


STUBBORN = """
def main():
    Log("ready")
    while True:
        try:
            while True:
                try:
                    Sleep(5)
                except:
                    pass
        except:
            pass
def onexit():
    Log("onexit")
"""


def test_a_script_that_swallows_everything_is_ended_all_the_same(start: Start) -> None:
    with start(STUBBORN, TRUNKLINE_STOP_GRACE_S="0.3") as strategy:
        strategy.wait_line("ready")
        strategy.signal(signal.SIGTERM)
        assert strategy.end() == 143
    assert strategy.lines[-1].endswith("onexit")


HANGING = """
def main():
    Log("main")
def onexit():
    Log("onexit")
    while True:
        pass
"""


def test_a_second_ctrl_c_ends_a_hanging_onexit(start: Start) -> None:
    with start(HANGING) as strategy:
        strategy.wait_line("onexit")
        strategy.signal(signal.SIGINT)
        strategy.wait_line("send the signal again")
        while strategy.process.poll() is None:
            # Two that come together count as one, so this may take several.
            strategy.signal(signal.SIGINT)
            try:
                strategy.end(0.2)
            except subprocess.TimeoutExpired:
                continue
        # One too many meets an interpreter that is ending and has given the signal back.
        assert strategy.end() in (130, -signal.SIGINT)


def test_onexit_has_a_limit(start: Start) -> None:
    with start(HANGING, TRUNKLINE_ONEXIT_S="0.2") as strategy:
        assert strategy.end() == 1
    assert "ERROR onexit took too long" in strategy.output


def test_an_onexit_that_swallows_its_limit_is_ended(start: Start) -> None:
    text = """
        def main(): pass
        def onexit():
            while True:
                try: Sleep(60_000)
                except: Log("swallowed")
    """
    with start(text, TRUNKLINE_ONEXIT_S="0.2", TRUNKLINE_STOP_GRACE_S="0.2") as strategy:
        assert strategy.end() == 1
    assert "swallowed" in strategy.output
    assert "the script does not stop" in strategy.output


def test_a_thread_that_never_ends_does_not_keep_the_process(start: Start) -> None:
    text = """
        import threading
        def main():
            threading.Thread(target=threading.Event().wait).start()
            Log("done")
    """
    with start(text) as strategy:
        assert strategy.end() == 0
    assert "done" in strategy.output


def test_a_child_that_the_script_forked_can_be_terminated(start: Start) -> None:
    text = """
        import multiprocessing, time
        def main():
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
            child.start()
            child.terminate()
            child.join()
            Log("child ended", child.exitcode)
    """
    with start(text) as strategy:
        assert strategy.end() == 0
    assert "child ended -15" in strategy.output


def test_nobody_reading_ends_it_quietly(tmp_path: Path) -> None:
    text = """
        def main():
            while True:
                Log("row")
        def onexit():
            open("onexit", "w").close()
    """
    script = tmp_path / "strategy.py"
    script.write_text(dedent(text))
    command = [
        sys.executable,
        "-m",
        "trunkline",
        "run",
        "--data",
        str(tmp_path / "data"),
        str(script),
    ]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert b"row" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""
    assert (tmp_path / "onexit").exists()


def test_commands_are_read_from_standard_input(start: Start) -> None:
    text = """
        def main():
            Log("ready")
            while True:
                command = GetCommand()
                if command:
                    Log("got", command)
                Sleep(5)
    """
    with start(text) as strategy:
        strategy.wait_line("ready")
        strategy.say("buy:1")
        strategy.wait_line("got buy:1")
        strategy.signal(signal.SIGINT)
        assert strategy.end() == 130


def test_the_secrets_are_not_inherited_by_what_the_script_starts(start: Start) -> None:
    text = """
        import subprocess
        def main():
            Log(exchange.HMAC("md5", "hex", "x", "{{secretkey}}"))
            Log("env:", subprocess.run(["env"], capture_output=True, text=True).stdout)
    """
    with start(text, TRUNKLINE_SECRETKEY="hidden-value") as strategy:
        assert strategy.end() == 0
    assert "env:" in strategy.output
    assert "hidden-value" not in strategy.output

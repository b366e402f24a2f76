"""The life of a strategy in this process: what is called, in which order, and the exit code."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from trunkline.strategy import run


class _FakeConnection:
    """Gives its messages, then ""."""

    def __init__(self, *messages: str) -> None:
        self.messages = list(messages)
        self.written: list[str] = []
        self.closed = False

    def read(self, timeout_ms: int | None = None) -> str:
        return self.messages.pop(0) if self.messages else ""

    def write(self, data: str) -> int:
        self.written.append(data)
        return len(data)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def strategy(tmp_path: Path) -> Callable[..., int]:
    """Runs a script's text and gives its exit code."""

    def execute(text: str, **options: Any) -> int:
        script = tmp_path / "strategy.py"
        script.write_text(dedent(text))
        return run(str(script), data=tmp_path / "data", **options)

    return execute


def _rows(output: str) -> list[str]:
    """The log rows without their times."""
    return [line[25:] for line in output.splitlines() if line[:2] == "20"]


def test_init_main_and_onexit_are_called_in_this_order(
    strategy: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    code = strategy("""
        Log("body", __name__)
        def onexit(): Log("onexit")
        def main(): Log("main")
        def init(): Log("init")
    """)
    assert code == 0
    assert _rows(capsys.readouterr().out) == ["body __main__", "init", "main", "onexit"]


def test_a_script_that_calls_main_itself_is_not_run_twice(
    strategy: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    strategy("""
        def main(): Log("main")
        if __name__ == "__main__":
            main()
    """)
    assert _rows(capsys.readouterr().out) == ["main"]


def test_an_error_is_shown_with_the_users_own_lines_and_onexit_runs(
    strategy: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    code = strategy("""
        import json
        def parse(): return json.loads("{")
        def main(): parse()
        def onexit(): Log("onexit")
    """)
    shown = capsys.readouterr()
    assert code == 1
    assert _rows(shown.out) == ["onexit"]
    assert 'return json.loads("{")' in shown.err
    assert "runner.py" not in shown.err
    assert "decoder.py" not in shown.err
    assert "JSONDecodeError" in shown.err


def test_an_error_inside_a_global_names_the_users_line(
    strategy: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    code = strategy("""
        def main():
            Encode("no such", "raw", "hex", "")
    """)
    shown = capsys.readouterr().err
    assert code == 1
    assert "line 3, in main" in shown
    assert "encode.py" not in shown


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("import sys\ndef main(): sys.exit(7)", 7),
        ("import sys\ndef main(): sys.exit()", 0),
        ("import sys\ndef main(): sys.exit('because')", 1),
        ("def main(): raise KeyboardInterrupt", 130),
        ("x = 1", 1),
        ("def main(): raise ValueError", 1),
        ("def main(): pass\ndef onexit(): raise ValueError", 1),
        ("def init(): raise ValueError\ndef main(): Log('main')", 1),
        ("raise ValueError", 1),
        ("def main(): return 5", 0),
    ],
)
def test_exit_codes(strategy: Callable[..., int], text: str, code: int) -> None:
    assert strategy(text) == code


def test_a_script_without_main_is_told_so(
    strategy: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    strategy("def Main(): pass")
    assert _rows(capsys.readouterr().out) == ["ERROR strategy.py defines no main()"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("async def main(): pass", "main() is an async function"),
        ("def main(): yield", "main() holds a yield"),
        ("async def main(): yield", "main() holds a yield"),
        ("async def init(): pass\ndef main(): pass", "init() is an async function"),
        ("def main(): pass\nasync def onexit(): pass", "onexit() is an async function"),
    ],
)
def test_a_function_that_only_looks_called_is_an_error(
    strategy: Callable[..., int], capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    assert strategy(text) == 1
    assert words in capsys.readouterr().out


def test_a_traceback_steers_no_terminal(
    strategy: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert strategy(r'def main(): raise ValueError("a\x1b[31mb\x1b]0;title\x07c")') == 1
    shown = capsys.readouterr().err
    assert "ValueError: abc" in shown
    assert "\x1b" not in shown


def test_a_crash_of_a_thread_is_shown_and_stored_like_one_of_the_script(
    strategy: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """\
        import sys, threading

        def crash():
            raise ValueError("a\\x1b[31mb")

        def main():
            for target in (crash, sys.exit):
                thread = threading.Thread(target=target, name="feeder")
                thread.start()
                thread.join()
            Log("goes on")
        """
    log = tmp_path / "log.jsonl"
    assert strategy(text, log_file=log) == 0
    shown = capsys.readouterr()
    assert "goes on" in shown.out
    assert shown.err.count("Exception in thread feeder:") == 1
    assert "ValueError: ab\n" in shown.err
    assert "in run" not in shown.err  # the library's lines
    assert "Exception in thread feeder" in log.read_text()


def test_a_script_that_cannot_be_read_is_a_usage_error(
    strategy: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(tmp_path / "missing.py")) == 2
    assert "No such file" in capsys.readouterr().err
    assert run(str(tmp_path)) == 2
    assert "directory" in capsys.readouterr().err
    assert strategy("def main(:\n") == 2
    shown = capsys.readouterr().err
    assert "line 1" in shown
    assert "def main(:" in shown
    assert "Traceback" not in shown


def test_the_interpreter_is_left_as_it_was(strategy: Callable[..., int]) -> None:
    def state() -> list[Any]:
        handlers = [
            signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        ]
        return [*handlers, sys.argv, list(sys.path), sys.modules["__main__"], sys.stdout, sys.stderr,
                threading.excepthook, threading.active_count()]  # fmt: skip

    before = state()
    strategy("def main(): Sleep(1)")
    assert state() == before


def test_the_script_sees_its_arguments_its_folder_and_itself(
    strategy: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "helper.py").write_text("NAME = 'helper'")
    strategy(
        """
        import sys, helper
        def main():
            Log(sys.argv[1:], helper.NAME, __file__ == sys.argv[0], sys.modules["__main__"].main is main)
        """,
        argv=["a", "--b"],
    )
    assert _rows(capsys.readouterr().out) == ["['a', '--b'] helper True True"]
    del sys.modules["helper"]


def test_every_global_of_the_contract_is_there(
    strategy: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    names = (
        "Dial Log LogStatus LogReset LogProfit LogProfitReset LogError LogVacuum EnableLog Sleep _D _N _C "
        "_CDelay _G _Cross _T Unix UnixNano SetErrorFilter GetLastError GetCommand GetPid GetMeta GetOS "
        "Version UUID MD5 Encode HttpQuery DBExec Mail JSONParse exchange exchanges true false null StopError"
    )
    strategy(f"""
        def main():
            Log([name for name in "{names}".split() if name not in globals()])
            Log(true, false, null, exchanges[0] is exchange)
    """)
    assert _rows(capsys.readouterr().out) == ["[]", "True False None True"]


def test_c_repeats_on_false_and_none_only(
    strategy: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    strategy("""
        answers = [None, False, 0]
        def ask(a, b=0):
            Log("asked", a, b)
            return answers.pop(0)
        def main():
            _CDelay(1)
            Log(_C(ask, 1, b=2), _C(list), _C(str) == "")
    """)
    assert _rows(capsys.readouterr().out) == ["asked 1 2"] * 3 + ["0 [] True"]


def test_values_of_g_outlive_the_run(
    strategy: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
        def main():
            _G("Runs", (_G("runs") or 0) + 1)
            Log(_G("RUNS"))
    """
    strategy(text)
    strategy(text)
    assert _rows(capsys.readouterr().out) == ["1", "2"]


def test_errors_go_through_the_filter_and_to_getlasterror(
    strategy: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    strategy("""
        import logging
        def main():
            SetErrorFilter("timeout")
            logging.getLogger("trunkline.proxy.dial").warning("a %s", "timeout")
            Log(GetLastError(), GetLastError())
            LogError("other")
    """)
    assert _rows(capsys.readouterr().out) == ["a timeout None", "ERROR other"]


def test_the_log_file_has_every_row_and_the_crash(
    strategy: Callable[..., int], tmp_path: Path
) -> None:
    text = """
        def main():
            Log("one")
            LogProfit(2.5, "x")
            LogProfit(3.5, "&")
            LogStatus("not stored")
            raise ValueError("boom")
    """
    strategy(text, log_file=tmp_path / "log")
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [row["type"] for row in rows] == ["log", "profit", "error"]
    assert "ValueError: boom" in rows[-1]["text"]


def test_a_log_file_that_cannot_be_opened_is_a_usage_error(
    strategy: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert strategy("def main(): pass", log_file=tmp_path / "no" / "log") == 2
    assert "No such file" in capsys.readouterr().err


def test_what_the_script_prints_stands_among_its_rows(
    strategy: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    strategy("""
        def main():
            Log("one")
            print("printed", end="!\\n")
            Log("two")
    """)
    lines = capsys.readouterr().out.splitlines()
    assert [line[25:] or line for line in lines] == ["one", "printed!", "two"]


def test_a_thread_that_sleeps_ends_with_the_strategy(
    strategy: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    code = strategy("""
        import threading
        def work():
            try:
                while True:
                    Sleep(60_000)
            except StopError:
                Log("thread ended")
                raise
        thread = threading.Thread(target=work)
        def main(): thread.start()
    """)
    assert code == 0
    shown = capsys.readouterr()
    assert "thread ended" in shown.out
    assert "Traceback" not in shown.err


EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_binance_example_reads_until_the_link_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ticker = {
        "s": "BTCUSDT",
        "h": "1",
        "l": "2",
        "b": "3",
        "a": "4",
        "c": "5",
        "q": "6",
        "E": 1700000000000,
    }
    connection = _FakeConnection(json.dumps([ticker]))
    dialled: list[str] = []

    def dial(address: str) -> _FakeConnection:
        dialled.append(address)
        return connection

    assert run(str(EXAMPLES / "binance_ticker.py"), data=tmp_path, dial=dial) == 0
    assert dialled == ["wss://stream.binance.com:9443/ws/!ticker@arr"]
    assert connection.closed
    shown = capsys.readouterr().out
    assert "| Ticker Chart" in shown
    assert "BTCUSDT" in shown
    assert "2023-11-1" in shown


def test_an_example_that_cannot_dial_says_so_and_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(EXAMPLES / "binance_ticker.py"), data=tmp_path, dial=lambda address: None) == 0
    assert _rows(capsys.readouterr().out) == ["Connection failed, program exited"]

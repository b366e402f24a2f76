"""A strategy on a terminal: the status is drawn below the rows, and the terminal is given back."""

from __future__ import annotations

import fcntl
import io
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.strategies import heeding_signals
from trunkline.deadline import Deadline
from trunkline.strategy.journal import Row
from trunkline.strategy.live import QUEUED, LiveScreen


class _Terminal:
    """A strategy whose terminal is ours."""

    def __init__(self, script: Path, data: Path) -> None:
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = [sys.executable, "-m", "trunkline", "run", "--data", str(data), str(script)]
        env = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
        with heeding_signals():
            self.process = subprocess.Popen(
                command, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True
            )
        os.close(slave)
        self.seen = b""

    @property
    def text(self) -> str:
        """What was drawn, without escape sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.seen.decode("utf-8", "replace"))

    def read_until(self, done: Callable[[str], bool], timeout: float = 30.0) -> None:
        deadline = Deadline(timeout)
        while not done(self.text):
            assert not deadline.expired(), self.text
            if not self._more():
                assert done(self.text), self.text
                return

    def end(self) -> int:
        """Read to the end; the exit code."""
        while self._more():
            pass
        return self.process.wait(30)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self.master)

    def _more(self) -> bool:
        try:
            data = os.read(self.master, 65536)
        except OSError:  # Linux: the last holder of the other side has gone
            return False
        self.seen += data
        return bool(data)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[[str], _Terminal]]:
    made: list[_Terminal] = []

    def start(text: str) -> _Terminal:
        script = tmp_path / "strategy.py"
        script.write_text(dedent(text))
        made.append(_Terminal(script, tmp_path / "data"))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_rows_scroll_above_the_status_and_what_is_printed_too(
    terminal: Callable[[str], _Terminal],
) -> None:
    shown = terminal("""
        def main():
            table = {"type": "table", "title": "Prices", "cols": ["a"], "rows": [["x#ff0000"]] * 100}
            LogStatus("status line", table)
            LogProfit(1.5)
            Log("a row#00ff00")
            print("printed")
            Sleep(300)
            Log("\\x1b]0;evil\\x07last row")
    """)
    assert shown.end() == 0
    rows = [shown.text.index(text) for text in ("a row", "printed")]
    assert rows == sorted(rows)
    assert "Prices" in shown.text
    assert "more rows" in shown.text
    assert "Profit 1.5" in shown.text
    assert shown.text.rindex("status line") > shown.text.index("last row")
    assert b"evil" not in shown.seen
    assert shown.seen.rindex(b"\x1b[?25h") > shown.seen.rindex(b"\x1b[?25l"), "the cursor is back"


def test_ctrl_c_gives_the_terminal_back_and_a_crash_is_shown(
    terminal: Callable[[str], _Terminal],
) -> None:
    shown = terminal("""
        def main():
            LogStatus("working")
            while True:
                pass
        def onexit():
            Log("onexit")
            raise ValueError("at the end")
    """)
    shown.read_until(lambda text: "working" in text)
    shown.process.send_signal(signal.SIGINT)
    assert shown.end() == 130
    assert "onexit" in shown.text
    assert "ValueError: at the end" in shown.text
    assert shown.seen.rindex(b"\x1b[?25h") > shown.seen.rindex(b"\x1b[?25l")


class _Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_flood_of_rows_is_bounded_and_what_is_skipped_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trunkline.strategy.live.EVERY_S", 3600.0)
    stream = _Tty()
    screen = LiveScreen(stream)
    for number in range(QUEUED + 10):
        screen.row(Row(0.0, "log", f"row {number}."))
    screen.out("no line end")
    screen.close()
    assert "... 11 rows not shown" in stream.getvalue()
    assert "row 10." not in stream.getvalue()
    assert f"row {QUEUED + 9}." in stream.getvalue()
    assert "no line end" in stream.getvalue()


def test_a_terminal_that_goes_away_does_not_disturb_the_strategy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = LiveScreen(stream := _Tty())
    stream.close()
    screen.row(Row(0.0, "log", "row"))
    screen.status("status")
    screen.close()

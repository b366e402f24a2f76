"""A strategy goes on where its data folder, log file or output has no room, and says what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.disks import mounted
from tests.support.strategies import RunningStrategy

pytestmark = pytest.mark.own_broker

FULL = """
import os, sys
def attempt(name, call):
    Log(name, call(), GetLastError())
def main():
    place = sys.argv[1]
    own = Dial(f"sqlite3://{place}/own.db")
    own.exec("CREATE TABLE t (a)")
    DBExec("CREATE TABLE t (a)")
    _G("small", 1)
    Log("before")
    with open(f"{place}/ballast", "wb", buffering=0) as ballast:
        try:
            while ballast.write(bytes(1024)):
                pass
        except OSError:
            pass
    attempt("exec", lambda: own.exec("INSERT INTO t VALUES (?)", "x" * 20000))
    attempt("DBExec", lambda: DBExec("INSERT INTO t VALUES (?)", "x" * 20000))
    attempt("_G", lambda: _G("big", "x" * 20000))
    for number in range(200):
        Log("within", number, "x" * 100)
    os.unlink(f"{place}/ballast")
    Log("after", own.exec("INSERT INTO t VALUES (1)").affected, DBExec("SELECT COUNT(*) FROM t").values)
    Log("kept", _G("small"), own.exec("SELECT a FROM t").values)
"""


def test_a_data_folder_without_room(tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text(FULL)
    place = tmp_path / "d"
    place.mkdir()
    with mounted(place, "-t", "tmpfs", "-o", "size=512k", "none") as real:
        if not real:
            pytest.skip("only root may mount")
        log = place / "log.jsonl"
        options = ("--data", str(place / "data"), "--log", str(log))
        with RunningStrategy(script, *options, arguments=(str(place),)) as strategy:
            assert strategy.end(60) == 0, strategy.output
        text = strategy.output
        assert "Traceback" not in text
        for name in ("exec", "DBExec"):
            assert f"{name} None sqlite3://" in text, text
        assert text.count("there is no space left for") == 4  # a row and a last error each
        assert "_G None the data folder" in text
        assert text.count("log.jsonl cannot be written (No space left on device)") == 1
        assert "log.jsonl can be written again" in text
        assert "kept 1 [[1]]" in text
        rows = [json.loads(line)["text"] for line in log.read_text().splitlines()]
        assert rows[0] == "before"
        assert rows[-1] == "kept 1 [[1]]"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_an_output_without_room(tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text(
        "def main():\n    for n in range(3000):\n        Log(n); print(n)\n    _G('done', 1)\n"
    )
    log = tmp_path / "log"
    command = [
        sys.executable,
        "-m",
        "trunkline",
        "run",
        "--data",
        str(tmp_path / "d"),
        "--log",
        str(log),
    ]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*command, str(script)], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode().splitlines() == [
        "trunkline: the output cannot be written (No space left on device); the strategy goes on"
    ]
    assert len(log.read_text().splitlines()) == 3000

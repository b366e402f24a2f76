"""Brokers and workers that become children of a program which is process 1, or a subreaper."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_CHILD_SUBREAPER is Linux's")

CODE = """
import ctypes, os, subprocess, sys, time
from pathlib import Path
from trunkline.proxy import orphans

ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
MARKED = "import os, sys, time\\nif os.fork(): os._exit(0)\\nos.setsid()\\nprint(os.getpid(), flush=True)\\n"
MARKED += "if not os.fork(): time.sleep(0.05); os._exit(0)\\ntime.sleep(0.1)"

def start(*arguments):
    starter = subprocess.Popen([sys.executable, "-c", MARKED, *arguments], stdout=subprocess.PIPE, text=True)
    pid = int(starter.stdout.readline())
    starter.stdout.close()
    starter.wait()
    return pid

def is_there(pid):
    return Path(f"/proc/{pid}").exists()

def await_end(pid):
    end = time.monotonic() + 30
    while is_there(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_there(pid)

broker = start("--ready-fd")
orphans.adopt(broker)
print("broker", await_end(broker))
child = subprocess.Popen(["true"])
other = start("not a broker of a Dial")
orphans.adopt(other)
again = start("--ready-fd")
orphans.adopt_started(again)
print("again", await_end(again))
print("other stays for the program", is_there(other), os.waitpid(other, 0)[0] == other)
print("own child stays for the program", os.waitpid(child.pid, 0)[0] == child.pid)
orphans.adopt(1 << 22)
"""


def test_they_are_awaited_and_the_programs_own_children_are_not() -> None:
    command = [sys.executable, "-c", CODE]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.stdout.splitlines(), ended.stderr) == (
        [
            "broker True",
            "again True",
            "other stays for the program True True",
            "own child stays for the program True",
        ],
        "",
    )


def test_a_process_that_is_no_child_of_this_one_is_left_alone() -> None:
    from trunkline.proxy import orphans

    orphans.adopt(1)
    orphans.adopt_started(1)

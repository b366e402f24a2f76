"""When a program leaves its broker: seen in programs of their own, as it happens at their end."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trunkline.proxy import leaving

BEGIN = """
import atexit, multiprocessing, os, sys, threading, time
from trunkline.proxy import leaving
def say(*words): print(*words, flush=True)
leaving.leave_at_exit(lambda: say("left"))
"""


def lines_of(code: str) -> list[str]:
    command = [sys.executable, "-c", BEGIN + code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_at_the_end_of_the_program_behind_its_threads() -> None:
    code = "threading.Thread(target=lambda: (time.sleep(0.2), say('thread'))).start(); say('main')"
    assert lines_of(code) == ["main", "thread", "left"]


def test_before_what_the_program_registered_earlier() -> None:
    assert lines_of("atexit.register(say, 'later'); say('main')") == ["main", "later", "left"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_behind_children_that_run_on(method: str) -> None:
    code = f"""
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    context.Process(target=time.sleep, args=(0.3,)).start()
    say("main")
"""
    assert lines_of(code)[:2] == ["main", "left"]


def test_children_of_before_a_plain_fork_are_not_waited_for() -> None:
    code = """
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
child.start()
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
    child.kill()
    say("main")
else:
    leaving.leave()
    os._exit(0)
"""
    assert lines_of(code) == ["left", "main", "left"]


def test_a_child_of_multiprocessing_leaves_behind_its_threads() -> None:
    code = """
def work():
    leaving.leave_with_child()
    threading.Thread(target=lambda: (time.sleep(0.2), say("thread"))).start()
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
say("main")
"""
    assert lines_of(code) == ["thread", "left", "main", "left"]


def test_no_child_of_multiprocessing_registers_nothing() -> None:
    leaving.leave_with_child()  # this process is none, or runs on without an effect

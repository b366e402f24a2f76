"""When a crashed worker is replaced, and how its end is told."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trunkline.broker.process import Watch, is_alive
from trunkline.broker.supervisor import Crashes, describe_exit


def test_five_crashes_within_the_window_are_forgiven_and_the_sixth_is_not() -> None:
    crashes = Crashes()
    assert [crashes.may_restart(float(n)) for n in range(6)] == [True] * 5 + [False]


def test_crashes_long_ago_do_not_count() -> None:
    crashes = Crashes()
    assert all(crashes.may_restart(n * 7.0) for n in range(100))
    assert crashes.total == 100


def test_each_replacement_waits_a_little_longer() -> None:
    crashes = Crashes()
    waits = []
    for n in range(5):
        crashes.may_restart(float(n))
        waits.append(crashes.wait_s())
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert waits[-1] <= 2


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (None, "ended"),
        (0, "ended with status 0"),
        (-9, "was killed by SIGKILL"),
        (-99, "was killed by signal 99"),
    ],
)
def test_an_end_in_words(status: int | None, words: str) -> None:
    assert describe_exit(status) == words


def test_a_watched_process_is_seen_to_end_and_a_zombie_is_no_living_one() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    watch = Watch(process.pid)
    try:
        assert not watch.ended()
        watch.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        assert watch.ended()
        assert not is_alive(process.pid)
    finally:
        watch.close()
        process.communicate()
    watch.kill()  # of one that is gone: nothing happens


def test_a_process_that_is_gone_already_can_be_watched() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    watch = Watch(process.pid)
    assert watch.fileno() == -1
    assert watch.ended()
    watch.close()

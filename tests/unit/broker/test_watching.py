"""Callbacks for file descriptors and for the ends of processes."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from collections.abc import Iterator

import pytest

from trunkline.broker.process import Watch
from trunkline.broker.watching import Watcher


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    with selectors.DefaultSelector() as selector:
        yield Watcher(selector)


def test_a_function_is_called_while_its_descriptor_is_readable(watcher: Watcher) -> None:
    read, write = os.pipe()
    called: list[int] = []
    watcher.call_when_readable(read, lambda: called.append(1))
    watcher.call_ready(0)
    os.write(write, b".")
    watcher.call_ready(10)
    assert called == [1]
    watcher.forget(read)
    watcher.call_ready(0)
    assert called == [1]
    os.close(read)
    os.close(write)


def test_a_descriptor_without_a_function_only_wakes(watcher: Watcher) -> None:
    read, write = os.pipe()
    watcher.call_when_readable(read, None)
    os.write(write, b".")
    watcher.call_ready(10)
    os.close(read)
    os.close(write)


def test_the_end_of_a_process_is_told_until_it_is_released(watcher: Watcher) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    watch = Watch(process.pid)
    called: list[int] = []
    watcher.call_at_end(watch, lambda: called.append(1))
    watcher.call_ready(0)
    assert called == []
    process.communicate()
    watcher.call_ready(10)
    assert called == [1]
    watcher.release(watch)
    watcher.release(watch)
    watcher.call_ready(0)
    assert called == [1]


def test_a_process_that_is_gone_already_is_told_at_once(watcher: Watcher) -> None:
    watch = Watch(2**22 + 1)  # more than a process id can be
    called: list[int] = []
    watcher.call_at_end(watch, lambda: called.append(1))
    assert called == [1]
    watcher.release(watch)

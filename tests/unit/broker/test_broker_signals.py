"""A signal never makes the broker send from within its handler: that might be between two frames."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from trunkline.broker.directory import Connection
from trunkline.broker.router import Broker
from trunkline.broker.zygote import Zygote


class NoZygote:
    """Starts nothing and says nothing."""

    pid = 0

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def fileno(self) -> int:
        return self._read

    def has_ended(self, pid: int) -> None:
        raise AssertionError("a process of others was taken for a child")

    def close(self, *, stays: bool = False) -> None:
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def _handlers() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_order_to_stop_is_carried_out_by_the_loop(tmp_path: Path, number: int) -> None:
    broker = Broker(f"ipc://{tmp_path}/broker.sock", cast(Zygote, NoZygote()), persistent=True)
    connection = Connection(b"12345678", 1, {}, False, 0.0)
    broker.directory.add(connection)
    seen = []

    def ready() -> None:
        os.kill(os.getpid(), number)
        seen.append(connection.closing)

    broker.run(ready)
    assert seen == [None]
    assert connection.closing is not None

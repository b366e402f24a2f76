"""A signal never makes the broker send from within its handler: that might be between two frames."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.spawners import ScriptedSpawner
from trunkline.broker.directory import Connection
from trunkline.broker.router import Broker


@pytest.mark.usefixtures("restored_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_order_to_stop_is_carried_out_by_the_loop(tmp_path: Path, number: int) -> None:
    broker = Broker(f"ipc://{tmp_path}/broker.sock", ScriptedSpawner(), persistent=True)
    connection = Connection(b"12345678", 1, {}, False, 0.0)
    broker.directory.add(connection)
    seen = []

    def ready() -> None:
        os.kill(os.getpid(), number)
        seen.append(connection.closing)

    broker.run(ready)
    assert seen == [None]
    assert connection.closing is not None

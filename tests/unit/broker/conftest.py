"""A broker without sockets, and the signal handlers of the test process as they were before a broker ran."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.brokers import StagedBroker


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[StagedBroker]:
    """A broker without sockets, whose clock stands still unless the test lets time pass."""
    broker = StagedBroker(tmp_path)
    yield broker
    broker.close()


@pytest.fixture
def restored_signals() -> Iterator[None]:
    """Take back the handlers and the wakeup descriptor that `Broker.run` sets."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)

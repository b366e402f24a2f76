"""A broker that is told to end while it starts: no traceback, nothing left."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.strategies import heeding_signals

pytestmark = pytest.mark.own_broker
STARTS_S = 1.0


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="tlb-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_broker_that_is_told_to_end_at_any_moment_of_its_start(
    number: signal.Signals, place: Path, rng: random.Random
) -> None:
    environ = {key: value for key, value in os.environ.items() if key != "TRUNKLINE_BROKER"}
    for turn in range(8):
        folder = place / f"b-{turn}"
        command = [
            sys.executable,
            "-m",
            "trunkline.broker",
            "--address",
            f"ipc://{folder}/broker.sock",
        ]
        with heeding_signals():
            broker = subprocess.Popen(
                [*command, "--persistent"],
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        threading.Event().wait(0.15 + rng.random() * STARTS_S)
        while not folder.exists() and broker.poll() is None:  # before that it is Python's own start
            threading.Event().wait(0.001)
        broker.send_signal(number)
        said, _ = broker.communicate(timeout=30)
        assert b"Traceback" not in said, said.decode()
        assert not folder.exists(), (said, list(folder.iterdir()))


TOLD_WITH_THE_LOCK = """
import os, signal, sys
ftruncate = os.ftruncate

def told_to_end(fd, length):
    os.kill(os.getpid(), signal.SIGTERM)
    ftruncate(fd, length)

os.ftruncate = told_to_end
from trunkline.broker.__main__ import main
sys.exit(main(["--address", sys.argv[1], "--persistent"]))
"""


def test_a_broker_that_is_told_to_end_when_it_has_the_lock_and_has_not_signed_it(
    place: Path,
) -> None:
    folder = place / "b"
    command = [sys.executable, "-c", TOLD_WITH_THE_LOCK, f"ipc://{folder}/broker.sock"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in ended.stderr, ended.stderr
    assert not folder.exists(), (ended, list(folder.iterdir()))

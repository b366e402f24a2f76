"""The shared broker ends with the process that has started it, however that ends."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

PROGRAM = """
import sys
from pathlib import Path
from tests.support.anchor import SharedBroker
shared = SharedBroker(Path(sys.argv[1]))
shared.ensure()
print(*(process.pid for process in shared.anchor.processes), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the end of a parent")
def test_a_killed_pytest_leaves_no_broker() -> None:
    with tempfile.TemporaryDirectory(prefix="tla-") as folder:  # a socket's path has to be short
        check_that_no_broker_is_left(folder)


def check_that_no_broker_is_left(folder: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as program:
        assert program.stdout
        processes = [psutil.Process(int(pid)) for pid in program.stdout.readline().split()]
        assert processes
        program.kill()
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive
    assert not Path(folder, "b-shared").exists()

"""The example's drivers and the tools for tests, installed as wheels into an environment of their own."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.wheels import ROOT, build, make_environment

_RUN_S = 200
pytestmark = [
    pytest.mark.own_broker,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("installed"),
]

EXAMPLE = ROOT / "examples" / "echo_driver"
SQLITE = """
import pytest
from trunkline.testing.contracts import ExecContract

class TestSqlite(ExecContract):
    slow = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    error_code = "SQLITE_ERROR"

    @pytest.fixture
    def address(self, tmp_path):
        return f"sqlite3://{tmp_path}/test.db"
"""
INSTALLED = """
import echo_driver, trunkline, trunkline.testing.contracts

def test_the_wheels_are_tested():
    for module in (echo_driver, trunkline, trunkline.testing.contracts):
        assert "ENVIRONMENT" in module.__file__

def test_a_failed_assertion_of_a_contract_would_show_its_values():
    assert type(trunkline.testing.contracts.stream.__loader__).__name__ == "AssertionRewritingHook"

def test_the_fixtures_are_there(trunkline_ws, trunkline_fault_proxy):
    proxy = trunkline_fault_proxy(trunkline_ws.port)
    with trunkline.connect(f"ws://{proxy.address}") as feed:
        trunkline_ws.say("tick")
        assert feed.read(10_000) == "tick"
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheels of Trunkline and of the example."""
    wheels = tmp_path_factory.mktemp("wheels")
    for name, source in (("trunkline", ROOT), ("example", EXAMPLE)):
        build(source, wheels, tmp_path_factory.mktemp(name) / "source", "build_wheel")
    found = sorted(wheels.glob("*.whl"))
    assert [wheel.name.split("-")[0] for wheel in found] == ["echo_driver", "trunkline"]
    return make_environment(tmp_path_factory.mktemp("environment") / "venv", found)


def run_pytest(python: Path, folder: Path, *options: str) -> str:
    """What pytest of that environment says of the tests in the folder, which have to pass."""
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\ntimeout = 60\n")
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TRUNKLINE_BROKER", "PYTHONPATH")
    }
    command = [str(python), "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "."]
    run = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=_RUN_S
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def passed(output: str) -> int:
    (count,) = re.findall(r"(\d+) passed", output)
    return int(count)


def test_the_example_proves_itself(python: Path, tmp_path: Path) -> None:
    # The test alone, without the driver beside it: that one has to come from the wheel.
    (tmp_path / "test_echo_driver.py").write_text((EXAMPLE / "test_echo_driver.py").read_text())
    output = run_pytest(python, tmp_path)
    assert passed(output) > 35
    assert "skipped" not in output


def test_the_tools_for_tests_come_with_the_wheel(python: Path, tmp_path: Path) -> None:
    (tmp_path / "test_installed.py").write_text(
        INSTALLED.replace("ENVIRONMENT", str(python.parents[1]))
    )
    assert passed(run_pytest(python, tmp_path)) == 3


def test_the_contract_of_databases_runs_from_the_wheel(python: Path, tmp_path: Path) -> None:
    (tmp_path / "test_sqlite.py").write_text(SQLITE)
    assert passed(run_pytest(python, tmp_path, "-k", "block or select")) > 5

"""The code of docs/testing-your-strategy.md, run by pytest as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trunkline.testing.contracts
from trunkline.testing import Exchange, FaultProxy

pytestmark = [pytest.mark.own_broker, pytest.mark.timeout(300)]

PAGE = Path(__file__).parents[2] / "docs" / "testing-your-strategy.md"
_BLOCK = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_CONTRACTS = ("test_stream_driver.py", "test_database_driver.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All files of the page, and settings that make each warning an error."""
    page = PAGE.read_text(encoding="utf-8")
    blocks = _BLOCK.findall(page)
    assert len(blocks) == page.count("```python") == 7
    for name, code in blocks:
        (tmp_path / name).write_text(code)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\ntimeout = 60\n")
    return tmp_path


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "TRUNKLINE_BROKER"}
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=200
    )


def passed(folder: Path, *arguments: str) -> int:
    """How many tests have passed there; no other result is allowed."""
    run = run_pytest(folder, *arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    (summary,) = re.findall(r"^(\d+) passed(?:, \d+ deselected)? in", run.stdout, re.MULTILINE)
    return int(summary)


def test_the_strategies_pass_their_tests(folder: Path) -> None:
    ignored = [f"--ignore={name}" for name in _CONTRACTS]
    assert passed(folder, *ignored, ".") == 4


def test_the_drivers_pass_their_tests(folder: Path) -> None:
    # The whole contracts of these drivers are run by tests/contract.
    assert passed(folder, *_CONTRACTS, "-k", "outage or commits or select or nothing_there") == 5


def test_a_driver_that_is_not_what_it_declares_fails(folder: Path) -> None:
    """The failure shows the values, as pytest does it for a test's own assertions."""
    page = folder / "test_stream_driver.py"
    page.write_text(page.read_text().replace('lost = ""', "lost = None"))
    run = run_pytest(folder, page.name, "-k", "read_that_waits_sees_the_loss")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "assert '' == None" in run.stdout


def test_the_page_names_everything_and_nothing_else() -> None:
    """The tables hold every public name of an exchange, of its clients and of a fault proxy."""
    page = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:[\w\[\]]+\.)?(\w+)", page)) | set(re.findall(r"(\w+)\(", page))
    for thing in (Exchange, FaultProxy):
        methods = {name for name in dir(thing) if not name.startswith("_")} - {"stop", "address"}
        assert not methods - named, thing
    for name in trunkline.testing.contracts.__all__:
        assert name in page or name == "rows"

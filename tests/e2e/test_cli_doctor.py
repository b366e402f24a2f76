"""`trunkline doctor`: all well here, and what it says where something is not."""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import run

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
OF_DEVELOPERS = {"all", "testing", "test", "docs", "lint"}
"""Extras that bring no part of a program."""
STATUSES = {"ok", "warn", "FAIL"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, as a unix socket needs it."""
    with tempfile.TemporaryDirectory(prefix="tl-") as name:
        yield Path(name)


def test_everything_works_here() -> None:
    ended = run("doctor", "--json")
    found = {each["name"]: each for each in json.loads(ended.out)}
    assert ended.code == 0, ended.out
    assert {each["status"] for each in found.values()} <= {"ok", "warn"}
    assert {
        "python",
        "libraries",
        "zeromq",
        "runtime folder",
        "file limit",
        "clock",
        "broker",
    } <= set(found)
    assert found["broker start"]["status"] == found["wss"]["status"] == "ok"
    assert "ms" in found["dial"]["text"]


def test_it_says_one_line_each_and_leaves_the_users_brokers_alone(folder: Path) -> None:
    ended = run("doctor", env={"TRUNKLINE_RUNTIME": str(folder / "mine"), "TRUNKLINE_BROKER": None})
    assert ended.code == 0
    assert {line.split()[0] for line in ended.out.splitlines()} <= STATUSES | {"->"}
    assert not (folder / "mine").exists()


def test_extras_that_are_missing_are_named_with_their_command() -> None:
    from trunkline.cli import findings

    lines = [each for each in findings.machine() if each.name.startswith("extra ")]
    extras = set(tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"])
    assert {"fast", "kafka", "strategy"} <= extras - OF_DEVELOPERS
    assert {each.name.split()[1] for each in lines} == extras - OF_DEVELOPERS
    for each in lines:
        assert "not installed" not in each.text or f"trunkline[{each.name.split()[1]}]" in each.text


def test_a_runtime_folder_that_cannot_work_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    env = {"TRUNKLINE_RUNTIME": str(tmp_path / "file"), "TRUNKLINE_BROKER": None}
    ended = run("doctor", env=env)
    assert ended.code == 1
    line = next(line for line in ended.out.splitlines() if "runtime folder" in line)
    assert line.startswith("FAIL")
    too_long = run("doctor", env={**env, "TRUNKLINE_RUNTIME": "/" + "x" * 120})
    assert too_long.code == 1
    assert "longer than" in too_long.out


def test_leftovers_are_found(folder: Path) -> None:
    stale = folder / "b-0123456789ab"
    stale.mkdir(mode=0o700)
    (stale / "lock").touch()
    ended = run("doctor", env={"TRUNKLINE_RUNTIME": str(folder), "TRUNKLINE_BROKER": None})
    assert ended.code == 0
    line = next(line for line in ended.out.splitlines() if line[6:].startswith("leftovers"))
    assert line.startswith("warn")
    assert stale.name in line


def test_the_proxy_of_the_environment_is_named() -> None:
    ended = run("doctor", "--json", env={"https_proxy": "http://u:S3cret@p:1", "no_proxy": "x.org"})
    texts = [each["text"] for each in json.loads(ended.out) if each["name"] == "proxy"]
    assert texts[1].startswith("wss: http://***@p:1 (from https_proxy), but not to x.org")
    assert "S3cret" not in ended.out
    wrong = run("doctor", env={"wss_proxy": "quic://p"})
    assert wrong.code == 1
    assert "environment variable wss_proxy" in wrong.out

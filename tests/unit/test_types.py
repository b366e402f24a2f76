"""What type checkers say about programs that use Trunkline: mistakes are seen, right code is clean."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trunkline
from trunkline.address import OPTIONS, PARAMS
from trunkline.address.option_types import Options

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(
    path for path in (ROOT / "examples").glob("*.py") if "from trunkline" in path.read_text()
)
"""Not those of strategies, whose names come from outside."""
IMPORTS = """
import pandas, time
import trunkline
from datetime import UTC, datetime
from decimal import Decimal
from trunkline import Connection, Dial, connect
"""
GIVEN = """
db = connect("postgres://h/d")
thousands_of_rows: list[tuple[str, float]] = []
yesterday = datetime.now(UTC)
"""
USE = """
from typing import assert_type
from trunkline import Connection, Dial, Message, RaisingConnection, Rows, connect

options: trunkline.Options = {"reconnect": True, "interval": 500}
plain = Dial("ws://h", options, timeout=3, headers={"X": "k"}, payload=["a", {"op": "b"}], compress="gzip")
assert_type(plain, Connection | None)
with connect("kafka://h/t", group="g", offset="earliest", security_protocol="SSL") as conn:
    assert_type(conn, RaisingConnection)
    assert_type(conn.fd(), int)
    assert_type(conn.read(), str | bytes)
    assert_type(conn.read(5), str | bytes | None)
    assert_type(conn.receive(), Message)
    assert_type(conn.seek("earliest", partition=1), bool)
    assert_type(conn.query("SELECT 1"), Rows)
    assert_type(conn.exec("SELECT 1").columns, list[str])
    with conn.transaction() as held:
        held.exec("SELECT 1").values
    for message in conn:
        assert_type(message, str | bytes)
"""
WRONG = """
from trunkline import Dial, connect

Dial("ws://h", reconect=True)
connect("ws://h", interval="5 s")
connect("ws://h", compress="gzipp")
Dial("ws://h").read()
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the package as it is installed, for checkers that know no mapped folders."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "trunkline").mkdir()
    for entry in (*(ROOT / "sdk").iterdir(), ROOT / "broker", ROOT / "actors"):
        (folder / "trunkline" / entry.name).symlink_to(entry)
    (folder / "right.py").write_text(IMPORTS + USE)
    (folder / "wrong.py").write_text(WRONG)
    for number, block in enumerate(readme()):
        (folder / f"readme_{number}.py").write_text(
            IMPORTS + ("" if "connect(feed)" in block else GIVEN) + block
        )
    return folder


def readme() -> list[str]:
    return re.findall(
        r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )


def run(package: Path, *command: str) -> str:
    environment = {**os.environ, "MYPYPATH": str(package), "PYTHONPATH": str(package)}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=package,
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


def programs(package: Path) -> list[str]:
    return [*sorted(str(path) for path in package.glob("*.py")), *map(str, EXAMPLES)]


def by_file(lines: list[str]) -> tuple[list[str], list[str]]:
    """The lines about the wrong program, and the others."""
    return [line for line in lines if "wrong.py" in line], [
        line for line in lines if "wrong.py" not in line
    ]


def test_every_option_and_parameter_has_a_type() -> None:
    names = {
        *OPTIONS,
        *(
            name
            for rows in PARAMS.values()
            for row in rows.values()
            for name in (row.name, *row.also)
        ),
    }
    assert {name for name in names if name.isidentifier()} <= set(Options.__annotations__)


@pytest.mark.timeout(300)
def test_mypy_sees_mistakes_and_takes_the_readme_and_the_examples(package: Path) -> None:
    said = run(package, "mypy", "--strict", "--ignore-missing-imports", *programs(package))
    wrong, others = by_file([line for line in said.splitlines() if "error:" in line])
    assert [line.rpartition("[")[2] for line in wrong] == [
        "call-arg]",
        "arg-type]",
        "arg-type]",
        "union-attr]",
    ]
    assert others == []


@pytest.mark.timeout(300)
def test_pyright_sees_mistakes_and_takes_the_readme_and_the_examples(package: Path) -> None:
    said = run(
        package, "pyright", "--pythonpath", sys.executable, "--outputjson", *programs(package)
    )
    found = json.loads(said)["generalDiagnostics"]
    lines = [f"{each['file']}: {each['message']}" for each in found if each["severity"] == "error"]
    wrong, others = by_file(lines)
    assert len(wrong) == 4, wrong
    assert others == []


@pytest.mark.timeout(300)
def test_all_that_is_promised_has_known_types(package: Path) -> None:
    said = run(
        package,
        "pyright",
        "--pythonpath",
        sys.executable,
        "--verifytypes",
        "trunkline",
        "--ignoreexternal",
        "--outputjson",
    )
    promised = [
        f"{trunkline._HOME[name]}.{name}" for name in trunkline.__all__ if name in trunkline._HOME
    ]
    promised += ["trunkline.dbapi", "trunkline.actors.driver"]
    symbols = json.loads(said)["typeCompleteness"]["symbols"]
    assert len(symbols) > 1000
    unknown = [
        symbol["name"]
        for symbol in symbols
        if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]
        if any(f"{symbol['name']}.".startswith(f"{name}.") for name in promised)
    ]
    assert "\n".join(unknown) == ""

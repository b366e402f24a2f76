"""The rows of the schemes: complete, and true of the options, the drivers and the extras of this release."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from trunkline.actors import registry
from trunkline.actors.driver import ExecDriver
from trunkline.address import OPTIONS, SCHEMES, parse_address
from trunkline.address.params import PARAMS, find_param
from trunkline.address.redaction import is_secret_name
from trunkline.address.schemes import ALIASES, find_scheme, scheme_row
from trunkline.address.schemes.model import FAMILIES
from trunkline.errors import UnknownScheme
from trunkline.sqltext import Dialect

ROOT = Path(__file__).parents[3]
SCHEME_FILES = ROOT / "sdk" / "address" / "schemes"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=; ]", text)[0] for text in requirements}


def test_a_row_is_found_by_every_name() -> None:
    assert all(name == row.name for name, row in SCHEMES.items())
    for row in SCHEMES.values():
        assert all(find_scheme(name.upper()) is row for name in (row.name, *row.aliases))
    assert not set(ALIASES) & set(SCHEMES)


def test_a_name_of_another_program_is_answered_with_ours() -> None:
    pairs = [(name, row.name) for row in SCHEMES.values() for name in row.mistaken]
    assert len({name for name, _ in pairs}) == len(pairs)
    for name, ours in pairs:
        with pytest.raises(UnknownScheme, match=rf"did you mean '{re.escape(ours)}'$"):
            find_scheme(name)


def test_a_scheme_of_another_distribution_has_no_knowledge() -> None:
    row = scheme_row("echo")
    assert (row.family, row.driver, row.port, row.options) == ("other", "", None, ())


@pytest.mark.parametrize("name", SCHEMES)
def test_the_options_of_a_row_exist(name: str) -> None:
    row = SCHEMES[name]
    assert len(set(row.options)) == len(row.options)
    assert set(row.options) <= set(OPTIONS)
    assert {option for option, _ in row.defaults} <= set(row.options)
    assert not {option for option, _ in row.refusals} & set(row.options)
    assert {option for option, _ in row.refusals} <= set(OPTIONS)


def test_every_option_is_obeyed_by_some_scheme() -> None:
    assert all(option.schemes for option in OPTIONS.values())


@pytest.mark.parametrize("name", SCHEMES)
def test_the_driver_of_a_row_is_there(name: str) -> None:
    row = SCHEMES[name]
    driver = registry.driver_class(name)
    assert row.driver.endswith(f":{driver.__name__}")
    assert issubclass(driver, ExecDriver) == (row.family == "database")
    if issubclass(driver, ExecDriver):
        assert Dialect(row.dialect) is Dialect(driver.dialect)
    else:
        assert row.dialect == ""


@pytest.mark.parametrize("name", [name for name, row in SCHEMES.items() if row.extra])
def test_the_extra_of_a_row_brings_its_packages(name: str) -> None:
    row = SCHEMES[name]
    assert names_of(PROJECT["optional-dependencies"][row.extra]) == set(row.packages)


@pytest.mark.parametrize("name", [name for name, row in SCHEMES.items() if row.family == "broker"])
def test_the_parameters_of_a_broker_are_those_of_its_protocol(name: str) -> None:
    row = SCHEMES[name]
    assert list(row.params) == list(PARAMS[row.protocol].values())
    assert {*row.needs, *row.subjects} <= {param.name for param in row.params}
    assert row.needs
    assert not [param for param, _ in row.elsewhere if find_param(row.protocol, param)]


NEW_SCHEME = """
from trunkline.address.schemes.model import STREAM, Scheme

ROWS = (Scheme(name="pigeon", family="socket", example="pigeon://host:port", options=STREAM),)
"""
ASK = "from trunkline.address import SCHEMES, parse_address; print(*SCHEMES, parse_address('pigeon://h:1').host)"


def test_every_file_with_rows_is_found_in_an_order_that_does_not_change() -> None:
    files = {path.stem for path in SCHEME_FILES.glob("*.py") if "\nROWS" in path.read_text()}
    assert len(files) == len(list(SCHEME_FILES.glob("*.py"))) - 2  # all but __init__ and model
    families = [row.family for row in SCHEMES.values()]
    assert families == sorted(families, key=FAMILIES.index)
    assert set(families) == set(FAMILIES)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_new_file_is_all_that_a_new_scheme_needs(tmp_path: Path, zipped: bool) -> None:
    shutil.copytree(
        ROOT / "sdk", tmp_path / "trunkline", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "trunkline/address/schemes/pigeon.py").write_text(NEW_SCHEME)
    place = tmp_path
    if zipped:
        place = Path(shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path, "trunkline"))
        shutil.rmtree(tmp_path / "trunkline")
    environ = {**os.environ, "PYTHONPATH": str(place)}
    # without site-packages, so that the installed Trunkline is not the one that answers
    command = [sys.executable, "-S", "-c", ASK]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    *names, host = done.stdout.split()
    ours = list(SCHEMES)
    assert (names, host) == (
        [*ours[: ours.index("tcp")], "pigeon", *ours[ours.index("tcp") :]],
        "h",
    )


@pytest.mark.parametrize(
    "name", [name for name, row in SCHEMES.items() if row.family == "database"]
)
def test_a_database_reads_its_own_addresses(name: str) -> None:
    assert SCHEMES[name].read_dsn is not None


@pytest.mark.parametrize("name", [name for name, row in SCHEMES.items() if row.beat])
def test_what_a_row_names_as_its_beat_is_there(name: str) -> None:
    row = SCHEMES[name]
    assert row.beat in (*row.options, *(param.name for param in row.params))


@pytest.mark.parametrize("name", SCHEMES)
def test_no_secret_parameter_is_shown(name: str) -> None:
    row = SCHEMES[name]
    secrets = [param.name for param in row.params if param.secret and param.kind == "text"]
    for secret in secrets:
        assert is_secret_name(secret)
        given = {**dict.fromkeys(row.needs[:1], "n"), secret: "hunter2"}
        address = parse_address(
            f"{name}://host/?" + "&".join(f"{key}={value}" for key, value in given.items())
        )
        assert "hunter2" not in f"{address} {address!r} {address.display}"

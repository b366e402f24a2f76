"""The shape of the source: who may know whom, what is packaged, which names are public."""

from __future__ import annotations

import ast
import configparser
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import trunkline

ROOT = Path(__file__).parents[2]
FOLDERS = {"sdk": "trunkline", "broker": "trunkline.broker", "actors": "trunkline.actors"}
_NEUTRAL = "errors frames deadline address wire system sqltext"
NEUTRAL = tuple(f"trunkline.{name}" for name in _NEUTRAL.split())
"""What both sides of the wire may know."""

PUBLIC = [
    "Address",
    "AddressError",
    "BrokenError",
    "BrokerGone",
    "ClosedError",
    "Connection",
    "DeadHandle",
    "Dial",
    "DialError",
    "DialTimeout",
    "ExecResult",
    "Json",
    "Message",
    "MissingLibrary",
    "OperationTimeout",
    "Options",
    "OutcomeUnknown",
    "RaisingConnection",
    "RefusedError",
    "RemoteError",
    "Rows",
    "StatementError",
    "Stats",
    "TrunklineError",
    "Unconfirmed",
    "UnknownScheme",
    "Unsupported",
    "WorkerDied",
    "__version__",
    "connect",
    "last_error",
    "parse_address",
    "shutdown",
]


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    """The import name of a source file: `sdk/wire/__init__.py` is `trunkline.wire`."""
    top, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS[top], *(part for part in rest if part != "__init__")])


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def imports(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports, wherever in it, type checking included."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if within(alias.name, ("trunkline",)))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)}:{node.lineno}: import absolutely"
            if node.module == "trunkline":
                yield from (f"trunkline.{alias.name}" for alias in node.names)
            elif node.module and within(node.module, ("trunkline",)):
                yield node.module


def offences(
    files: list[Path], allowed: tuple[str, ...], denied: tuple[str, ...] = ()
) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files
        for module in imports(path)
        if not within(module, allowed) or within(module, denied)
    ]


def test_actors_know_the_neutral_packages_and_themselves() -> None:
    assert not offences(sources("actors"), (*NEUTRAL, "trunkline.actors", "trunkline.__version__"))


def test_the_sdk_does_not_know_the_actors() -> None:
    assert not offences(sources("sdk"), ("trunkline",), denied=("trunkline.actors",))


def test_the_broker_knows_neither_drivers_nor_connections() -> None:
    assert not offences(sources("broker"), (*NEUTRAL, "trunkline.broker", "trunkline.__version__"))


def test_the_neutral_packages_know_only_each_other() -> None:
    files = [path for path in sources("sdk") if within(module_name(path), NEUTRAL)]
    assert files
    assert not offences(files, (*NEUTRAL, "trunkline.__version__"))


ROOMS = (
    ("cli", "demo"),
    ("strategy", "db", "dbapi", "testing"),
    ("proxy",),
    ("address", "wire"),
    ("errors", "frames", "deadline", "message", "system", "sqltext"),
)
"""The rooms of the sdk, the highest first: each may know those of its own row and of the rows below."""


def test_no_room_of_the_sdk_looks_upward() -> None:
    row_of = {name: row for row, names in enumerate(ROOMS) for name in names}
    found = []
    for path in sources("sdk"):
        module = module_name(path)
        room = module.split(".")[1] if "." in module else ""
        for other in imports(path):
            other_room = other.split(".")[1] if "." in other else ""
            if room in row_of and other_room in row_of and row_of[other_room] < row_of[room]:
                found.append(f"{module} imports {other}")
    assert not found


def test_only_tests_import_the_tools_for_tests() -> None:
    tools = ("trunkline.testing",)
    files = [
        path for top in FOLDERS for path in sources(top) if not within(module_name(path), tools)
    ]
    assert not offences(files, ("trunkline",), denied=tools)


def test_every_room_of_the_sdk_has_its_row() -> None:
    rooms = {
        path.stem for path in (ROOT / "sdk").glob("*") if not path.name.startswith(("_", "py."))
    }
    assert rooms == {name for row in ROOMS for name in row}


def test_only_the_route_knows_the_three_ways_to_a_worker() -> None:
    ways = ("trunkline.proxy.routes",)
    files = [
        path for top in FOLDERS for path in sources(top) if not within(module_name(path), ways)
    ]
    others = [path for path in files if module_name(path) != "trunkline.proxy.route"]
    assert len(others) == len(files) - 1
    assert not offences(others, ("trunkline",), denied=ways)


def test_the_check_itself_sees_every_way_to_import(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "import trunkline.a, os, trunklines\n"
        "def f():\n    from trunkline import b as c\n    from trunkline.d.e import g\n"
    )
    assert sorted(imports(path)) == ["trunkline.a", "trunkline.b", "trunkline.d.e"]


def test_packages_on_disk_and_packages_listed_are_the_same() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = runpy.run_path(str(ROOT / "setup.py"))["find_packages"]()
    on_disk = {module_name(path) for top in FOLDERS for path in (ROOT / top).rglob("__init__.py")}
    assert listed == sorted(on_disk)
    mapped = dict(
        line.split(" = ") for line in config["options"]["package_dir"].strip().splitlines()
    )
    assert mapped == {package: folder for folder, package in FOLDERS.items()}


def test_every_folder_with_code_is_a_package() -> None:
    bare = {path.parent for top in FOLDERS for path in sources(top)}
    assert not [folder for folder in bare if not (folder / "__init__.py").exists()]


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == trunkline.__version__


def test_the_public_names_are_these() -> None:
    assert sorted(trunkline.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(trunkline, name)
    assert name in dir(trunkline)


def test_importing_is_quiet_and_light() -> None:
    script = "import sys, trunkline; print(*{'zmq', 'asyncio', 'trunkline.proxy.dial'} & set(sys.modules))"
    command = [sys.executable, "-W", "error", "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "", "")


def test_dbapi_is_there_without_an_import_of_its_own() -> None:
    assert trunkline.dbapi.apilevel == "2.0"


def test_the_benchmarks_can_be_started() -> None:
    for command in (["benchmarks/run.py"], ["-m", "benchmarks.flapping"]):
        done = subprocess.run(
            [sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

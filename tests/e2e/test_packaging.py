"""What people install: the source distribution and the wheel, built from the files of the repository."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from tests.support.sockets import SocketServer, echo
from tests.support.wheels import ROOT, build

_USE = """
import sys, trunkline
assert trunkline.__file__.startswith(sys.argv[2]), trunkline.__file__
with trunkline.connect(sys.argv[1], 20) as conn:
    conn.write(b"over the installed copy")
    print(conn.read(20000))
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both archives."""
    folder = tmp_path_factory.mktemp("dist")
    build(
        ROOT, folder, tmp_path_factory.mktemp("source") / "trunkline", "build_sdist", "build_wheel"
    )
    return folder


def test_the_source_distribution_is_whole(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"}
    wanted |= {"pyproject.toml", "setup.cfg", "setup.py"}
    wanted |= {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / "examples").glob("*.py")}
    for top in ("sdk", "broker", "actors"):
        wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / top).rglob("*.py")}
    assert wanted <= names, sorted(wanted - names)


def test_the_wheel_has_the_package_its_licence_and_its_bounds(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as archive:
        names = archive.namelist()
        metadata = message_from_bytes(
            archive.read(next(n for n in names if n.endswith("/METADATA")))
        )
    assert {"trunkline/py.typed", "trunkline/proxy/dial.py", "trunkline/broker/router.py"} <= set(
        names
    )
    assert {name.split("/")[0].split("-")[0] for name in names} == {"trunkline"}
    assert metadata["License-Expression"] == "MIT"
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    for library in (
        "pika",
        "mysql-connector-python",
        "psycopg2-binary",
        "nats-py",
        "paho-mqtt",
        "picows",
    ):
        assert "<" in _requirement(metadata, library), f"{library} has no upper bound"
    assert "extra ==" in _requirement(metadata, "PySocks"), "only an extra needs it"


def _requirement(metadata: Message, library: str) -> str:
    return next(each for each in metadata.get_all("Requires-Dist", []) if each.startswith(library))


def test_every_library_of_the_extras_is_in_all() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (everything,) = extras["all"]
    named = set(everything.removeprefix("trunkline[").removesuffix("]").split(","))
    assert named == set(extras) - {"all", "testing", "test", "docs", "lint"}


def test_the_installed_wheel_dials(dist: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    wheel = str(next(dist.glob("*.whl")))
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        wheel,
    ]
    subprocess.run(install, check=True, capture_output=True)
    with SocketServer(echo) as server:
        begin = f"import sys; sys.path.insert(0, {str(site)!r})\n"
        command = [
            sys.executable,
            "-P",
            "-c",
            begin + _USE,
            f"tcp://127.0.0.1:{server.port}",
            str(site),
        ]
        ended = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "over the installed copy" in ended.stdout

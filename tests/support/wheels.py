"""Distributions as people install them: wheels built from the sources, and environments that hold them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

__all__ = ["ROOT", "build", "make_environment"]

ROOT = Path(__file__).parents[2]
_NOT_SHIPPED = (".git", ".venv", "*.egg-info", "__pycache__", "build", "dist")
_BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"


def build(source: Path, into: Path, copy: Path, *hooks: str) -> None:
    """Run hooks of the build (`build_wheel`, `build_sdist`) on a copy of the sources, for setuptools writes
    beside them. `copy` is the copy's folder, which does not exist yet."""
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns(*_NOT_SHIPPED))
    for hook in hooks:
        command = [sys.executable, "-c", _BUILD, hook, str(into)]
        subprocess.run(command, cwd=copy, check=True, capture_output=True)


def make_environment(folder: Path, wheels: list[Path]) -> Path:
    """Make a virtual environment with the wheels; its interpreter.

    Nothing is fetched: what the wheels need is taken from the environment of the tests, whose packages come
    after those of the new one. Its editable install of Trunkline, which works by a `.pth` file, is not seen.
    """
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120
    )
    python = folder / "bin" / "python"
    install = ["install", "-q", "--no-index", "--no-deps", *map(str, wheels)]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), *install], check=True, timeout=120
    )
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python

"""The packages of the distribution: every folder with an `__init__.py` in the folders that setup.cfg maps.

setuptools finds packages by itself only where a folder has its package's name. Here `sdk` is `trunkline`, and
a list by hand would be one more place that a new driver has to be written into.
"""

from __future__ import annotations

import configparser
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent


def find_packages() -> list[str]:
    """The import names, `trunkline.actors.drivers.mqtt` and so on, in alphabetical order."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    mapped = (line.split(" = ") for line in config["options"]["package_dir"].split("\n") if line)
    return sorted(
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for package, folder in mapped
        for path in (ROOT / folder).rglob("__init__.py")
    )


if __name__ == "__main__":
    setup(packages=find_packages())

"""The first script of an interpreter of Trunkline: `python -P starting.py MODULE ARGUMENT...`.

The script arranges the import path before any further import. The standard library comes first,
then the path of the starting process (see trunkline.system.interpreter), then the rest of the
interpreter's own path. So a `secrets.py` or `zmq.py` in the current folder, or in the program's
folder, is never taken for a library.

Above `run`, import only modules that every interpreter loads by itself.
"""

from __future__ import annotations

import os
import sys

IMPORTS_ENV = "TRUNKLINE_IMPORTS"
"""Lines: the Python version, the file of `trunkline`, and the folders of the import path."""


def is_standard(entry: str, library: str) -> bool:
    """Whether an entry of the import path is the standard library's. `library`: its main folder."""
    name = os.path.basename(entry)
    zipped = name.startswith("python") and name.endswith(".zip")
    return zipped or entry == library or name == "lib-dynload"


def arranged(own: list[str], given: list[str], library: str) -> list[str]:
    """Return this interpreter's import path. `own`: its own path; `given`: the starter's path."""
    standard = [entry for entry in own if is_standard(entry, library)]
    return list(dict.fromkeys([*standard, *given, *own]))


def load_trunkline(file: str) -> None:
    """Load `trunkline` from the file that the starting process uses."""
    from importlib.util import module_from_spec, spec_from_file_location

    folders = [os.path.dirname(file)]
    spec = spec_from_file_location("trunkline", file, submodule_search_locations=folders)
    if spec is not None and spec.loader is not None:
        module = sys.modules["trunkline"] = module_from_spec(spec)
        spec.loader.exec_module(module)


def run() -> None:
    """Arrange the import path and run the module that the arguments name."""
    version, file, *given = os.environ.pop(IMPORTS_ENV).split("\n")
    own = "{}.{}".format(*sys.version_info)
    if own != version:
        sys.exit(
            f"the interpreter is Python {own} and the program runs Python {version}: "
            f"set TRUNKLINE_PYTHON to the path of a Python {version}"
        )
    sys.path[:] = arranged(sys.path, given, os.path.dirname(os.__file__))
    if os.path.exists(file):
        load_trunkline(file)
    from runpy import run_module

    del sys.argv[0]
    run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run()

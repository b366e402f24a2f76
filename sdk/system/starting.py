"""What an interpreter that Trunkline starts runs first: `python -P starting.py MODULE ARGUMENT...`.

The import path is arranged before anything else is imported: the standard library first, then what the
starting process could import (see trunkline.system.interpreter), then what this interpreter has by itself. So
a `secrets.py` or `zmq.py` in the current folder, or in the program's, is never taken for a library.

Only what the interpreter has loaded anyway may be imported above `run`.
"""

from __future__ import annotations

import os
import sys

IMPORTS_ENV = "TRUNKLINE_IMPORTS"
"""Lines: the Python version, the file of the package `trunkline`, then the folders to import from."""


def is_standard(entry: str, library: str) -> bool:
    """Whether an entry of the import path is of the standard library, whose main folder is `library`."""
    name = os.path.basename(entry)
    zipped = name.startswith("python") and name.endswith(".zip")
    return zipped or entry == library or name == "lib-dynload"


def arranged(own: list[str], given: list[str], library: str) -> list[str]:
    """The import path of this interpreter: `own` is what it has by itself, `given` what it was handed."""
    standard = [entry for entry in own if is_standard(entry, library)]
    return list(dict.fromkeys([*standard, *given, *own]))


def load_trunkline(file: str) -> None:
    """Let `trunkline` be the very package of the starting process, wherever that had found it."""
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

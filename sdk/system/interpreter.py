"""Starting further Python processes with the import path of this one.

The current folder and the folder of the program's script are left out. They hold files of the user,
or of a stranger, perhaps with the name of a library (`secrets.py`, `signal.py`, `queue.py`).

One exception: a folder from which `trunkline` itself was imported holds the libraries and stays.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from trunkline.errors import BrokerGone
from trunkline.system.starting import IMPORTS_ENV

__all__ = ["ENV", "command", "environment", "import_path", "interpreter", "leave_current_folder"]

ENV = "TRUNKLINE_PYTHON"


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of Trunkline in a new interpreter.

    Start the command with `environment()`. Raises BrokerGone where no interpreter is known.
    """
    flags = ["-P"]
    if sys.flags.ignore_environment:
        flags.append("-E")
    if sys.flags.no_user_site:
        flags.append("-s")
    return [interpreter(), *flags, *_first(), module, *arguments]


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for `command`, made from `base` or from this process's own."""
    environ = dict(os.environ if base is None else base)
    package = str(Path(__file__).parents[1] / "__init__.py")
    version = "{}.{}".format(*sys.version_info)
    environ[IMPORTS_ENV] = "\n".join([version, package, *import_path()])
    kept = _kept(environ.get("PYTHONPATH", "").split(os.pathsep))
    # The interpreter imports `sitecustomize` from PYTHONPATH before any line of Trunkline runs.
    environ["PYTHONPATH"] = os.pathsep.join(kept)
    if not kept:
        del environ["PYTHONPATH"]
    return environ


def import_path() -> list[str]:
    """The folders (and archives) on this process's import path, as absolute paths.

    The current folder and that of the program's script are left out.
    """
    return _kept(sys.path)


def leave_current_folder() -> None:
    """Remove the current folder from the import path: `python -m` puts it first."""
    if not sys.flags.safe_path and sys.path and _kept(sys.path[:1]) == []:
        del sys.path[0]


def interpreter() -> str:
    """Return the path of the Python to start: $TRUNKLINE_PYTHON, else the present interpreter.

    The running program may be no interpreter (uWSGI, a frozen or an embedding program). Then the
    path of an interpreter beside it is returned. Raises BrokerGone without any.
    """
    if given := os.environ.get(ENV):
        return given
    running = sys.executable or ""
    if _may_be_python(running):
        return running
    name = "python{}.{}".format(*sys.version_info)
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix):
        beside = os.path.join(prefix, "bin", name)
        if os.access(beside, os.X_OK):
            return beside
    raise BrokerGone(
        f"the broker could not be started: this program ({running or 'it has no sys.executable'}) is no "
        f"Python interpreter; set {ENV} to the path of {name}"
    )


def _may_be_python(path: str) -> bool:
    name = os.path.basename(path).lower()
    return ("python" in name or "pypy" in name) and not getattr(sys, "frozen", False)


def _first() -> list[str]:
    """Return the arguments for `starting.py`: its path, or `-c` and its text from an archive."""
    from trunkline.system import starting

    path = str(starting.__file__)
    if os.path.exists(path):
        return [path]
    return ["-c", str(starting.__loader__.get_source(starting.__name__))]  # type: ignore[union-attr]


def _kept(entries: list[str]) -> list[str]:
    """Return the usable entries as absolute paths, each once, without the barred folders."""
    barred = set(_barred())
    found = [os.path.abspath(entry) for entry in entries if _is_usable(entry)]
    return list(dict.fromkeys(path for path in found if os.path.realpath(path) not in barred))


def _is_usable(entry: object) -> bool:
    """Whether an entry names a folder independent of the current folder, or can be made
    absolute."""
    if not isinstance(entry, str) or not entry or "\n" in entry:
        return False
    return os.path.isabs(entry) or _has_cwd()


def _barred() -> Iterator[str]:
    """Yield the current folder and the script's folder, except the one with `trunkline`."""
    package = Path(__file__).parents[1]
    home = os.path.realpath(package.parent if package.name == "trunkline" else package)
    if _has_cwd() and (here := os.path.realpath(os.getcwd())) != home:
        yield here
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if isinstance(script, str) and (os.path.isabs(script) or _has_cwd()):
        folder = os.path.dirname(os.path.realpath(script))
        if folder != home:
            yield folder


def _has_cwd() -> bool:
    """Whether the current folder still exists."""
    try:
        os.getcwd()
    except OSError:  # the folder was deleted while in use
        return False
    return True

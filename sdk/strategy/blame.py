"""A traceback for users: only the frames of the user's own files."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

__all__ = ["report"]

_LIBRARY = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
_OTHERS = ("<", *(f"{folder}/" for folder in (Path(__file__).resolve().parent.parent, *_LIBRARY)))
"""File names of frames that are not the user's begin so: built-in code, this package, the standard
library."""


def report(error: BaseException, script: Path) -> str:
    """The error as text, with the frames of the script and of the user's own modules."""
    found = traceback.TracebackException.from_exception(error)
    _strip_frames(found, script, set())
    return "".join(found.format())


def _strip_frames(found: traceback.TracebackException, script: Path, seen: set[int]) -> None:
    """Remove foreign frames from an exception and from its causes.

    `seen` ends cycles among exceptions.
    """
    if id(found) in seen:
        return
    seen.add(id(found))
    mine = [frame for frame in found.stack if _is_users(frame.filename, script)]
    found.stack = traceback.StackSummary.from_list(mine)
    for other in (found.__cause__, found.__context__, *(found.exceptions or ())):
        if other is not None:
            _strip_frames(other, script, seen)


def _is_users(filename: str, script: Path) -> bool:
    return filename == str(script) or not filename.startswith(_OTHERS)

"""The traceback a user can use: the lines that are theirs, without ours and without the library's."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

__all__ = ["report"]

_LIBRARY = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
_OTHERS = ("<", *(f"{folder}/" for folder in (Path(__file__).resolve().parent.parent, *_LIBRARY)))


def report(error: BaseException, script: Path) -> str:
    """The error as text, with the frames of the script and of modules that are the user's own."""
    found = traceback.TracebackException.from_exception(error)
    _strip_frames(found, script, set())
    return "".join(found.format())


def _strip_frames(found: traceback.TracebackException, script: Path, seen: set[int]) -> None:
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

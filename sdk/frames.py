"""Errors without the frames of this package, so that error reports show no secret.

Tools for error reports (Sentry, rich, `pytest -l`) show the variables of frames. The frames of a
dial hold the address with its passwords. So a dial catches every exception, removes the exception's
frames, deletes the variables with secrets, and raises the exception again. An exception of a signal
handler (Ctrl-C) during a dial is treated alike.
"""

from __future__ import annotations

import traceback
from typing import TypeVar

from trunkline.errors import TrunklineError

__all__ = ["Sealed", "without_frames"]

_Error = TypeVar("_Error", bound=BaseException)


def without_frames(error: _Error) -> _Error:
    """Return `error` without the tracebacks of the error and of all its causes.

    Raise the result after deleting the secrets of your own frame: `raise` adds that frame again. An
    unexpected error gets a note with the places of its traceback.
    """
    if isinstance(error, Exception) and not isinstance(error, (TrunklineError, TypeError)):
        places = "".join(traceback.format_tb(error.__traceback__))
        error.add_note(f"It came through:\n{places}")
    waiting: list[BaseException | None] = [error]
    seen = set()
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            waiting += [one.__cause__, one.__context__]
    return error


class Sealed(bytes):
    """Bytes with a secret. Tools show the repr of a frame's variables, and this repr hides the
    bytes."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

    __str__ = __repr__

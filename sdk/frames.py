"""Errors without the frames of this package, so that no error report shows a secret.

Tools that report errors (Sentry, rich, `pytest -l`) show the variables of frames. The frames of a
dial hold the address with its passwords. So the dial catches each exception, removes its frames,
deletes the variables that hold secrets, and raises the exception again. The exception of a signal
handler (Ctrl-C) that interrupts a dial is treated alike.
"""

from __future__ import annotations

import traceback
from typing import TypeVar

from trunkline.errors import TrunklineError

__all__ = ["Sealed", "without_frames"]

_Error = TypeVar("_Error", bound=BaseException)


def without_frames(error: _Error) -> _Error:
    """Return `error` without traceback, on itself and on all its causes.

    Raise it after deleting the secrets of your own frame: `raise` adds that frame again. An
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
    """Bytes with a secret. Their repr, which tools show for a variable of a frame, hides
    them."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

    __str__ = __repr__

"""Errors without the frames of this package.

Tools that report errors (Sentry, rich, `pytest -l`) show the variables of frames, and those of a dial hold
the address with its passwords. An error of a dial is raised anew from a function that has let go of them; so
is the exception of a signal handler (Ctrl-C) that breaks it off.
"""

from __future__ import annotations

import traceback
from typing import TypeVar

from trunkline.errors import TrunklineError

__all__ = ["Sealed", "without_frames"]

_Error = TypeVar("_Error", bound=BaseException)


def without_frames(error: _Error) -> _Error:
    """`error`, with no traceback on it nor on what caused it. Raise it after deleting the secrets of your own
    frame: `raise` adds that one. An error that nobody expected keeps a note of the places in the code."""
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
    """Bytes with a secret in them, which is not shown where the bytes are a variable of a frame."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

    __str__ = __repr__

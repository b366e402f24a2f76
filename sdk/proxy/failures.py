"""An object's answer to failure: an object of `connect` raises, an object of `Dial` logs and
returns a value."""

from __future__ import annotations

import logging
from typing import Any

from trunkline.errors import ClosedError, TrunklineError, Unsupported
from trunkline.proxy.about import About
from trunkline.proxy.process import is_cut_off
from trunkline.proxy.reasons import remember

__all__ = ["Failures", "closed_by"]

log = logging.getLogger("trunkline")


class Failures:
    """The answers to failure of one object."""

    __slots__ = ("_about", "_told")

    def __init__(self, about: About) -> None:
        self._about = about
        self._told: set[str] = set()
        """The methods whose use after `close` the log has told already."""

    def after_close(self, what: str, *, program_ends: bool) -> None:
        """Log and remember, once for each method, that the object is closed.

        A program may call a closed object in an endless loop, which must not hide later failures.
        `what`: the method's name. `program_ends`: the end of the program has closed the object.
        """
        if what not in self._told and not is_cut_off():
            self._told.add(what)
            error = ClosedError(
                f"{self._about.peer}: {closed_by(what, program_ends=program_ends)}; dial again"
            )
            log.warning("%s", error)
            remember(error)

    def failed(self, error: TrunklineError, value: Any, *, quiet: bool = False) -> Any:
        """Answer a failure: raise `error` for an object of `connect`, else log the error and return
        `value`.

        `quiet`: do not log; the error is kept for `last_error()` all the same.
        """
        if self._about.raising:
            raise error
        remember(error)
        if not quiet and not (isinstance(error, ClosedError) and is_cut_off()):
            text = str(error)
            log.warning("%s", text if self._about.peer in text else f"{self._about.peer}: {text}")
        return value

    def misuse(self, what: str, instead: str) -> None:
        """Answer a call of `what` on a scheme that has no such operation. `instead`: advice for the
        text."""
        error = Unsupported(f"{self._about.scheme}:// has no {what}: {instead}")
        self.failed(error, None)


def closed_by(what: str, *, program_ends: bool) -> str:
    """The text that says by whom the object was closed, for a call of `what`."""
    if program_ends:
        return f"{what} after the program's end has closed the connection"
    return f"{what} on a connection that you have closed"

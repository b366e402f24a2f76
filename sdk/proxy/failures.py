"""How an object answers failure: an object of `connect` raises, one of `Dial` logs and returns a value."""

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
    """Those of one object."""

    __slots__ = ("_about", "_told")

    def __init__(self, about: About) -> None:
        self._about = about
        self._told: set[str] = set()
        """The calls that the log has told of after the object was closed."""

    def after_close(self, what: str, *, program_ends: bool) -> None:
        """Say once what is wrong: a loop may go on for long, and must not hide what fails later."""
        if what not in self._told and not is_cut_off():
            self._told.add(what)
            error = ClosedError(
                f"{self._about.peer}: {closed_by(what, program_ends=program_ends)}; dial again"
            )
            log.warning("%s", error)
            remember(error)

    def failed(self, error: TrunklineError, value: Any, *, quiet: bool = False) -> Any:
        """Failure as this object's form says: raise, or log and answer with a value."""
        if self._about.raising:
            raise error
        remember(error)
        if not quiet and not (isinstance(error, ClosedError) and is_cut_off()):
            text = str(error)
            log.warning("%s", text if self._about.peer in text else f"{self._about.peer}: {text}")
        return value

    def misuse(self, what: str, instead: str) -> None:
        error = Unsupported(f"{self._about.scheme}:// has no {what}: {instead}")
        self.failed(error, None)


def closed_by(what: str, *, program_ends: bool) -> str:
    """Why `what` finds the object closed."""
    if program_ends:
        return f"{what} after the program's end has closed the connection"
    return f"{what} on a connection that you have closed"

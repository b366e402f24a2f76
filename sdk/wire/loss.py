"""The mark of a lost link with its cause, on the way from the worker to the reader."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Loss"]

_LONGEST = 500


class _Cause(NamedTuple):
    """The cause as the worker has sent it: not checked yet."""

    text: object
    code: object
    reason: object


class Loss(int):
    """A `Mark` (DOWN or END) with the cause of the loss. Counts and compares as the mark itself."""

    text: str
    """The event, as the end of a sentence; no secret."""
    code: str | int | None
    """The code of the peer or the system (a WebSocket close code, an errno); None without one."""
    reason: str | None
    """The peer's own words in its close frame; None without any."""

    @classmethod
    def of(
        cls, mark: int, text: str, code: str | int | None = None, reason: str | None = None
    ) -> Loss:
        """Make a mark with a cause. `text` is cut to 500 letters."""
        self = cls(mark)
        self.text, self.code, self.reason = text[:_LONGEST], code, reason
        return self

    def to_wire(self) -> list[Any]:
        return [self.text, self.code, self.reason]

    @classmethod
    def from_wire(cls, mark: int, fields: list[Any]) -> Loss:
        """Make a mark with a cause from the wire. Values of unexpected types are replaced."""
        cause = _Cause(*fields)
        known = cause.code if isinstance(cause.code, (str, int)) else None
        return cls.of(
            mark, str(cause.text), known, None if cause.reason is None else str(cause.reason)
        )

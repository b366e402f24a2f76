"""Why the last call failed: what `trunkline.last_error()` and a strategy's `GetLastError()` read."""

from __future__ import annotations

__all__ = ["last", "remember"]

_last: str | None = None


def remember(error: BaseException) -> None:
    """Keep an error's text as the reason of the last failure in this process."""
    global _last
    _last = str(error)


def last(*, clear: bool = False) -> str | None:
    """The reason of the last failure, None when nothing has failed (since it was cleared)."""
    global _last
    text = _last
    if clear:
        _last = None
    return text

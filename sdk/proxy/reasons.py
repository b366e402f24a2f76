"""The reason of the last failure: read by `trunkline.last_error()` and a strategy's
`GetLastError()`."""

from __future__ import annotations

__all__ = ["last", "remember"]

_last: str | None = None


def remember(error: BaseException) -> None:
    """Keep the text of an error as the reason of the last failure in this process."""
    global _last
    _last = str(error)


def last(*, clear: bool = False) -> str | None:
    """The reason of the last failure. None when no call has failed since the last `clear`."""
    global _last
    text = _last
    if clear:
        _last = None
    return text

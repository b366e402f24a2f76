"""A header's value as text, for protocols whose headers are only text."""

from __future__ import annotations

from typing import Any

__all__ = ["header_text"]

_NO_TEXT = (type(None), dict, list, tuple, set, frozenset, memoryview)


def header_text(name: str, value: Any) -> str:
    """Text unchanged, bytes decoded as UTF-8, numbers and similar values by `str`.

    ValueError for a value that would arrive in Python's notation ("None", "{'a': 1}"). The error
    does not quote the value.
    """
    if isinstance(value, _NO_TEXT):
        what = "no value (None)" if value is None else f"a value of type {type(value).__name__}"
        raise ValueError(f"header {name[:50]!r} has {what}, and it is sent as text")
    try:
        return value.decode() if isinstance(value, (bytes, bytearray)) else str(value)
    except UnicodeDecodeError:
        raise ValueError(
            f"header {name[:50]!r} has bytes that are no UTF-8, and it is sent as text"
        ) from None

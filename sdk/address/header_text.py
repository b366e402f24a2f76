"""A header's value as text, for the protocols whose headers are text alone."""

from __future__ import annotations

from typing import Any

__all__ = ["header_text"]

_NO_TEXT = (type(None), dict, list, tuple, set, frozenset, memoryview)


def header_text(name: str, value: Any) -> str:
    """Text as it stands, bytes as UTF-8, numbers and the like as Python writes them. ValueError for what
    would arrive in Python's notation ("None", "{'a': 1}"), in words that do not quote the value."""
    if isinstance(value, _NO_TEXT):
        what = "no value (None)" if value is None else f"a value of type {type(value).__name__}"
        raise ValueError(f"header {name[:50]!r} has {what}, and it is sent as text")
    try:
        return value.decode() if isinstance(value, (bytes, bytearray)) else str(value)
    except UnicodeDecodeError:
        raise ValueError(
            f"header {name[:50]!r} has bytes that are no UTF-8, and it is sent as text"
        ) from None

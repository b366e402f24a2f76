"""Text that UTF-8 cannot hold, refused in words: half of a surrogate pair, as careless JSON has it."""

from __future__ import annotations

from collections.abc import Mapping

from trunkline.errors import RefusedError

__all__ = ["check", "encoded"]


def encoded(text: str, what: str) -> bytes:
    """`text` as UTF-8. RefusedError names `what` cannot be sent."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise RefusedError(
            f"{what} has half of a surrogate pair ({text[error.start]!a} at position {error.start}), which "
            "UTF-8 cannot hold: nothing was sent; mend the text, or write bytes"
        ) from None


def check(value: object, what: str) -> None:
    """RefusedError, naming `what`, where a text in `value` cannot be sent; looks into mappings and lists."""
    if isinstance(value, str):
        encoded(value, what)
    elif isinstance(value, Mapping):
        for name, content in value.items():
            check(name, what)
            check(content, what)
    elif isinstance(value, (list, tuple)):
        for item in value:
            check(item, what)

"""Checks for text that UTF-8 cannot hold: half of a surrogate pair, as in careless JSON."""

from __future__ import annotations

from collections.abc import Mapping

from trunkline.errors import RefusedError

__all__ = ["check", "encoded"]


def encoded(text: str, what: str) -> bytes:
    """Return `text` as UTF-8. Raises RefusedError, with `what` as the name of the text."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise RefusedError(
            f"{what} has half of a surrogate pair ({text[error.start]!a} at position {error.start}), which "
            "UTF-8 cannot hold: nothing was sent; mend the text, or write bytes"
        ) from None


def check(value: object, what: str) -> None:
    """Raise RefusedError for a text that UTF-8 cannot hold, in `value`, its mappings or its lists.

    `what`: the name of the value in the error.
    """
    if isinstance(value, str):
        encoded(value, what)
    elif isinstance(value, Mapping):
        for name, content in value.items():
            check(name, what)
            check(content, what)
    elif isinstance(value, (list, tuple)):
        for item in value:
            check(item, what)

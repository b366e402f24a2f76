"""What pika's errors say."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pika.exceptions import AMQPError

__all__ = ["cause", "reason"]

_REASON = re.compile(r"\((\d{3})\) (['\"])(.*?)\2")


def cause(error: BaseException) -> BaseException:
    """What pika has wrapped in the failures of its workflow and connector."""
    while True:
        inner = getattr(error, "exceptions", None) or getattr(error, "exception", None) or error.args[:1]
        found = inner[-1] if isinstance(inner, Sequence) and inner else inner
        if not isinstance(found, BaseException):
            return error
        error = found


def reason(error: AMQPError) -> tuple[int | None, str]:
    """The broker's code and words, which pika quotes."""
    found = _REASON.search(" ".join(map(str, error.args)))
    return (int(found[1]), found[3]) if found else (None, str(error) or type(error).__name__)

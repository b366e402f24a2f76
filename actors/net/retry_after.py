"""What the HTTP header `Retry-After` asks for (RFC 9110, 10.2.3). Pure."""

from __future__ import annotations

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime

__all__ = ["read_retry_after"]

_NUMBERS = re.compile(r"[0-9]+(\.[0-9]+)?([ \t]*,[ \t]*[0-9]+(\.[0-9]+)?)*")
_LONGEST_S = 366 * 86_400.0
"""A longer time is taken as this one: event loops cannot sleep for any number of seconds."""


def read_retry_after(value: str | None, *, now: float, date: str | None = None) -> float | None:
    """Seconds from now until the peer wants to be asked again; None when the header cannot be understood.

    `value` is the header's text: a number of seconds or an HTTP date. `now` is our wall clock in seconds
    since 1970. Of several numbers the largest one holds, and a fraction of a second counts as a whole one.
    `date` is the `Date` header of the same answer: where it can be read, a date in `value` is
    counted from it, so that a difference between the two clocks does not matter. A date in the past gives
    0.0.
    """
    text = (value or "").strip()
    if _NUMBERS.fullmatch(text):
        return float(math.ceil(min(max(map(float, text.split(","))), _LONGEST_S)))
    at = _read_date(text)
    if at is None:
        return None
    sent_at = _read_date((date or "").strip())
    return min(max(0.0, at - (now if sent_at is None else sent_at)), _LONGEST_S)


def _read_date(text: str) -> float | None:
    """An HTTP date in any of its three forms, as seconds since 1970."""
    try:
        at = parsedate_to_datetime(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None

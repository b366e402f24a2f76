"""Reading the HTTP header `Retry-After` (RFC 9110, 10.2.3). Pure."""

from __future__ import annotations

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime

__all__ = ["read_retry_after"]

_NUMBERS = re.compile(r"[0-9]+(\.[0-9]+)?([ \t]*,[ \t]*[0-9]+(\.[0-9]+)?)*")
_LONGEST_S = 366 * 86_400.0
"""Longer times are cut to this one, because event loops cannot sleep for any number of seconds."""


def read_retry_after(value: str | None, *, now: float, date: str | None = None) -> float | None:
    """Seconds until the peer allows the next attempt; None for a header that cannot be read.

    `value`: the header's text, a number of seconds or an HTTP date. Of several numbers the largest
    counts. Fractions are rounded up. A date in the past gives 0.0.
    `now`: the wall clock of this machine, in seconds since 1970.
    `date`: the `Date` header of the same answer. Where it can be read, a date in `value` is counted
    from `date` and not from `now`, so a difference between the two clocks does not matter.
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

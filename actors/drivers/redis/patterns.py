"""Redis's patterns of channel names: which of several subscriptions brings a message. No I/O.

A server sends a message once for its channel and once more for each pattern that matches. Readers
want the message once, so only the first matching subscription of the connection counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["brings", "pattern_regex"]


def pattern_regex(pattern: bytes) -> re.Pattern[bytes]:
    """Return a pattern of PSUBSCRIBE as a regular expression.

    `*` stands for any bytes, `?` for one byte, `[a-c]` and `[^a]` for one byte of a set. A
    backslash takes the next byte literally.
    """
    parts: list[bytes] = []
    at = 0
    while at < len(pattern):
        byte = pattern[at : at + 1]
        if byte == b"[":
            part, at = _set(pattern, at + 1)
            parts.append(part)
            continue
        if byte == b"\\" and at + 1 < len(pattern):
            at += 1
            parts.append(re.escape(pattern[at : at + 1]))
        else:
            parts.append({b"*": b".*", b"?": b"."}.get(byte) or re.escape(byte))
        at += 1
    return re.compile(b"".join(parts), re.DOTALL)


def _set(pattern: bytes, at: int) -> tuple[bytes, int]:
    """Return the set that begins behind its `[`, and the place behind it.

    A set without `]` ends with the pattern.
    """
    negated = pattern[at : at + 1] == b"^"
    at += negated
    ranges: list[bytes] = []
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        if pattern[at : at + 1] == b"\\" and at + 1 < len(pattern):
            at += 1
            low = high = pattern[at : at + 1]
        elif pattern[at + 1 : at + 2] == b"-" and at + 2 < len(pattern):
            low, high = sorted((pattern[at : at + 1], pattern[at + 2 : at + 3]))
            at += 2
        else:
            low = high = pattern[at : at + 1]
        ranges.append(re.escape(low) + b"-" + re.escape(high))
        at += 1
    if not ranges:
        return (b"." if negated else b"(?!)"), at + 1
    return b"[" + b"^" * negated + b"".join(ranges) + b"]", at + 1


def brings(
    subscription: bytes,
    channel: bytes,
    channels: frozenset[bytes],
    patterns: Sequence[re.Pattern[bytes]],
    names: Sequence[bytes],
) -> bool:
    """Whether to take the message that came by the pattern `subscription`.

    It is not taken where a channel or an earlier pattern of the connection brings it. `patterns`
    and `names` hold all patterns of the connection in the same order.
    """
    if channel in channels:
        return False
    earlier = patterns[: names.index(subscription)] if subscription in names else ()
    return not any(pattern.fullmatch(channel) for pattern in earlier)

"""libpq's `key=value` pairs as lib/pq reads them: quotes, backslashes, white space around the
`=`."""

from __future__ import annotations

import re

from trunkline.address.golang import DsnError

__all__ = ["parse_pairs"]

# Go's unicode.IsSpace; Python's isspace() has four more characters.
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_KEY = re.compile(rf"[{_SPACE}]*([^={_SPACE}]*)[{_SPACE}]*")
_PAD = re.compile(rf"[{_SPACE}]*")
_BARE = re.compile(rf"(?:[^\\{_SPACE}]|\\.)*", re.DOTALL)
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL)


def parse_pairs(text: str, known: frozenset[str]) -> dict[str, str]:
    """The pairs; of duplicates, the last counts.

    An error quotes a key only if the key is `known`.
    """
    found: dict[str, str] = {}
    at = _end(_PAD, text, 0)
    while at < len(text):
        key = _KEY.match(text, at)
        if key is None or text[key.end() : key.end() + 1] != "=":
            # An unknown word may be the rest of a password with a space.
            name = key[1] if key and key[1] in known else "***"
            raise DsnError(f'missing "=" after "{name}" in connection info string')
        at = _end(_PAD, text, key.end() + 1)
        found[key[1]], at = _value(text, at)
        at = _end(_PAD, text, at)
    return found


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _value(text: str, at: int) -> tuple[str, int]:
    """The value that begins at `at`, and the position of its end."""
    if text[at : at + 1] == "'":
        quoted = _QUOTED.match(text, at)
        if quoted is None:
            raise DsnError("unterminated quoted string literal in connection string")
        return _unescape(quoted[1]), quoted.end()
    end = _end(_BARE, text, at)
    if text[end : end + 1] == "\\":
        raise DsnError("missing character after backslash")
    return _unescape(text[at:end]), end


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)

"""Hiding secrets in texts.

`redact` works on any text, even on malformed addresses, and rather hides too much than too little.
An `Address` hides its secrets field by field and does not need `redact`.
"""

from __future__ import annotations

import re

from trunkline.address.schemes import SCHEMES

__all__ = ["HIDDEN", "hide_path", "is_secret_name", "redact"]

HIDDEN = "***"

_HARMLESS = frozenset(
    (
        "routing_key",
        "keyfile",
        "sslkey",
        "passfile",
        "require_auth",
        "serverpubkey",
        "allowcleartextpasswords",
        "allownativepasswords",
        "allowoldpasswords",
        "_foreign_keys",
        "_defer_foreign_keys",
    )
)
_SECRET = re.compile(
    "pass|pwd|token|secret|key|sign|auth|credential|login|jaas|cookie|session_?id|creds|jwt|proxy|^username$"
)
_SCHEME = re.compile(r"""(?:(?<=[\s"'=(,`<\[{|])|^|(?<=://))[A-Za-z][A-Za-z0-9+.-]*://""")
_MESSAGE = re.compile(
    r"\b(payload|will_payload|pingMessage|headers)\s*=.*", re.DOTALL | re.IGNORECASE
)
_KEY = re.compile(r"(?<![\w.-])([\w.-]{1,40})\s*=\s*")
# An unquoted value includes the words up to the next `name=`: a password may hold a space.
_VALUE = re.compile(
    r"""'(?:[^'\\]|\\.)*'?|"[^"]*"?|[^&|\s"']*(?:\s+(?![\w.-]+\s*=)[^\s&|"']+)*""", re.DOTALL
)
# Host and perhaps port before the path: an `@` after this place is no user info.
_PLAIN_PLACE = re.compile(r"(?:\[[0-9A-Fa-f:.%]*\]|[\w.-]+)(?::[0-9]{1,5})?(?=[/?#|]|$)")
# Exchanges name streams with an @ (btcusdt@trade).
_AT_IN_PATH = tuple(f"{row.name}://" for row in SCHEMES.values() if row.family == "websocket")
_FILES = tuple(row.name for row in SCHEMES.values() if not row.net)
"""Schemes whose target is a file, without user and password."""
_SECRET_PARAMS = frozenset(
    name
    for row in SCHEMES.values()
    for param in row.params
    if param.secret
    for name in (param.name, *param.also)
)
# `user:password` in the place of `host:port`.
_BARE_ACCOUNT = re.compile(r"([\w.%+-]+:)(?![0-9]{0,5}(?:[/?#|\s,'\"]|$))[^/?#|\s]*")
# The same after a comma, in a message broker's list of servers.
_NEXT_ACCOUNT = re.compile(r"(,[\w.%+-]+:)(?![0-9]{0,5}(?:[/?#|\s,'\"]|$))[^/?#|\s,]*")
_TOKEN_SEGMENT = re.compile(r"(?=[^/]*[0-9])[A-Za-z0-9_=+-]{32,}")


def is_secret_name(name: str) -> bool:
    """Whether a parameter of this name may hold a password, key, token or signature."""
    lower = name.lower()
    return lower in _SECRET_PARAMS or (lower not in _HARMLESS and _SECRET.search(lower) is not None)


def hide_path(path: str) -> str:
    """The path with long random segments hidden: exchanges put listen keys into paths."""
    return "/".join(HIDDEN if _TOKEN_SEGMENT.fullmatch(part) else part for part in path.split("/"))


def redact(text: str) -> str:
    """`text` with every possible secret of an address hidden.

    Hidden are: user info, values of names that look secret, messages, headers, long random path
    segments.
    """
    text = _MESSAGE.sub(lambda match: f"{match[1]}={HIDDEN}", text)
    starts = [match.start() for match in _SCHEME.finditer(text)]
    if starts:
        ends = [*starts[1:], len(text)]
        pieces = [_hide_userinfo(text[a:b]) for a, b in zip(starts, ends, strict=True)]
        text = text[: starts[0]] + "".join(pieces)
    elif "@" in text:
        text = HIDDEN + text[text.rindex("@") :]
    text = _hide_values(text)
    return re.sub(r"[A-Za-z0-9_=+-]{32,}", lambda match: hide_path(match[0]), text)


def _hide_values(text: str) -> str:
    """Hide the values of names that look secret."""
    pieces, at = [], 0
    for key in _KEY.finditer(text):
        value = _VALUE.match(text, key.end())
        if key.start() >= at and is_secret_name(key[1]) and value is not None and value[0]:
            pieces += [text[at : key.end()], HIDDEN]
            at = value.end()
    return "".join(pieces) + text[at:]


def _hide_userinfo(address: str) -> str:
    """Hide the user info of an address that begins with its scheme."""
    scheme, _, rest = address.partition("://")
    head = f"{scheme}://"
    if "@" in rest:
        if head.lower() in _AT_IN_PATH and _PLAIN_PLACE.match(rest):
            return address
        places = rest[rest.rindex("@") :]
        authority = re.match(r"[^/?#|\s]*", places)
        assert authority is not None
        shown = _NEXT_ACCOUNT.sub(lambda match: match[1] + HIDDEN, authority[0])
        return f"{head}{HIDDEN}{shown}{places[authority.end() :]}"
    account = _BARE_ACCOUNT.match(rest)
    if account is None or scheme.lower() in _FILES:
        return address
    return f"{head}{account[1]}{HIDDEN}{rest[account.end() :]}"

"""Making texts of a peer fit for users: printable, short, without the address's secrets. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote

from trunkline.address import Address
from trunkline.address.redaction import HIDDEN, is_secret_name, redact

__all__ = ["first_line", "hidden", "own_secrets", "shown", "without_secrets"]

LONGEST = 200
"""How many characters of a peer's text are shown."""
_SHORTEST_SECRET = 4
"""Shorter values are not hidden: a short value stands in many words by chance."""
_TITLE = re.compile(r"(?is)<title[^>]*>(.*?)</title>")
_HIDDEN_PARTS = re.compile(r"(?is)<(script|style|head)\b.*?(</\1>|$)|<!--.*?(-->|$)|<[^>]*(>|$)")


def first_line(data: bytes | str) -> str:
    """The first line that is not empty, in `LONGEST` printable characters at most.

    Of HTML: the title, or the first line of text."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    if text.lstrip("\ufeff \t\r\n")[:1] == "<":
        title = _TITLE.search(text)
        text = title[1] if title and title[1].strip() else _HIDDEN_PARTS.sub("\n", text)
    for line in text.splitlines():
        words = " ".join("".join(c if c.isprintable() else " " for c in line).split())
        if words:
            return words if len(words) <= LONGEST else f"{words[: LONGEST - 3]}..."
    return ""


def shown(data: bytes) -> str:
    """The beginning of `data`, which may be no text, in quotes."""
    text = data[:60].decode("latin-1")
    return repr(f"{text}..." if len(data) > 60 else text)


def hidden(data: bytes, secrets: Iterable[str]) -> bytes:
    """`data` with all `secrets` hidden."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            data = data.replace(secret.encode("utf-8", "surrogateescape"), HIDDEN.encode())
    return data


def own_secrets(address: Address) -> set[str]:
    """The parts of an address that must not be shown even where a peer repeats them.

    These are the password (a user without a password is a token), headers, payloads, and parameters
    with names that look secret: as given, percent-encoded and decoded. The login also in base64."""
    found: set[str] = {address.password or address.user or ""}
    if address.password or address.user:
        account = f"{address.user or ''}:{address.password or ''}".encode(
            "utf-8", "surrogateescape"
        )
        found.add(base64.b64encode(account).decode())
    headers = address.option("headers") or {}
    pairs: Iterable[tuple[object, object]] = (
        headers.items() if hasattr(headers, "items") else headers
    )
    for _, value in pairs:
        found |= {str(value), *str(value).split()}
    found |= {str(value) for name, value in address.params.items() if is_secret_name(name)}
    for part in re.split(r"[?&]", address.target)[1:]:
        name, _, value = part.partition("=")
        if is_secret_name(name):
            found.add(value)
    for payload in address.option("payload") or ():
        found |= {str(payload), *re.findall(r"[A-Za-z0-9_+/=-]{16,}", str(payload))}
    return {spell(secret) for secret in found for spell in (str, quote, quote_plus, unquote)}


def without_secrets(words: str, secrets: Iterable[str]) -> str:
    """`words` with all `secrets` hidden, and with parts hidden that look like secrets."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            words = words.replace(secret, HIDDEN)
    # Stream names of exchanges contain an @ (`btcusdt@trade`), which is not the end of a login.
    return words if "@" in words and "://" not in words else redact(words)

"""The borders within an address: between target and options, and between the options' values.

The separator of a URL is the first `|` (or `||`) before a known option's name and `=`. A database's
DSN may have a `|` in its password. Its separator is the last `||` before a known name and `=`, else
the last `|` before a known name and `=`. A name that is nearly known counts too: the misspelling is
then reported, and does not become a part of the target. After the name of a server's database, any
name counts. A `||` at the very end says that no options follow.

A message (`payload`, `pingMessage`) that is JSON ends with its JSON; any other message ends before
the next `&name=` with a known name. Every other value ends at the next `&`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import unquote, unquote_to_bytes

from trunkline.address.nearest import nearest
from trunkline.address.options import OPTIONS
from trunkline.address.params import is_param
from trunkline.address.schemes import Scheme
from trunkline.address.unknown import unknown_option
from trunkline.errors import AddressError

__all__ = ["decoded", "read_options", "split_target"]

_CANDIDATE = re.compile(r"(\|\|?)([A-Za-z_][\w.-]*)=")
_BAR = re.compile(r"(\|\|?)")
_NAME = re.compile(r"([A-Za-z_][\w.-]*)=")
_ENCODED = re.compile(r"(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# Numbers stay text: no value is computed, and a long number is no error.
_JSON = json.JSONDecoder(parse_int=str, parse_float=str)
_MESSAGE_KINDS = ("message", "messages")


def split_target(rest: str, scheme: Scheme) -> tuple[str, str]:
    """Split the text after `scheme://` into the target and the text of the options ("" without
    options)."""
    database = scheme.family == "database"
    found = None if database and rest.endswith("||") else next(_candidates(rest, scheme), None)
    if found is None and rest.endswith("||"):
        return rest[:-2], ""
    found = (
        (_last(rest, scheme) or _slip_of_database(rest, scheme))
        if database
        else found or _slip(rest, scheme)
    )
    if found is None:
        return rest, ""
    return rest[: found.start()], rest[found.end(1) :]


def _candidates(rest: str, scheme: Scheme) -> Iterator[re.Match[str]]:
    """Every bar before a known or nearly known name and `=`, from left to right."""
    at = 0
    while (match := _CANDIDATE.search(rest, at)) is not None:
        if _is_name(match[2], scheme):
            yield match
        at = match.start() + 1 if match[1] == "|" else match.start() + 2


def _is_name(name: str, scheme: Scheme) -> bool:
    """Whether a name is an option or a parameter, or nearly an option."""
    return (
        name in OPTIONS or is_param(scheme, name) or nearest(name, OPTIONS, cutoff=0.8) is not None
    )


def _last(rest: str, scheme: Scheme) -> re.Match[str] | None:
    """The last separator of a database's DSN; a `||` goes before any `|`."""
    found = list(_candidates(rest, scheme))
    double = [match for match in found if match[1] == "||"]
    found = double or found
    return found[-1] if found else None


def _slip(rest: str, scheme: Scheme) -> re.Match[str] | None:
    """A bar without an option after it, to be reported as a mistake.

    A bar before an `@` may belong to a password; in a unix socket's path any bar may stand.
    """
    return None if scheme.net == "unix" else _BAR.search(rest, rest.rfind("@") + 1)


def _slip_of_database(rest: str, scheme: Scheme) -> re.Match[str] | None:
    """A `|name=` after a database's name, where `name` is no option, to be reported as a mistake.

    The value may be a secret, and the name of a database is shown, so the text must not become part
    of the name. A `|` in a password, in a parameter or in the path of a file is no mistake.
    """
    if not scheme.net or "/" not in rest:
        return None
    # Go takes the last `@` of a MySQL address. Other DSNs have no `/` in their passwords.
    start = rest.rfind("@") if scheme.last_at else rest.find("/")
    found = _CANDIDATE.search(rest, start + 1)
    return None if found is None or re.search(r"[?\s]", rest[: found.start()]) else found


def read_options(text: str, scheme: Scheme, target: str = "") -> list[tuple[str, str]]:
    """The options after `target` as (name, value) pairs in their order; AddressError for an unknown
    name.

    Values are percent-decoded, except the values of a message broker's parameters.
    """
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        if text[at] == "&":
            at += 1
            continue
        match = _NAME.match(text, at)
        if match is None:
            raise AddressError(
                "what follows the '|' must be options as name=value&name=value: "
                "write %7C for a '|' that belongs to the address"
            )
        name = match[1]
        if name not in OPTIONS and not is_param(scheme, name):
            raise unknown_option(name, scheme, f"{target}|{text[:at]}")
        value, at = _value(name, text, match.end(), scheme)
        found.append((name, value))
    return found


def _value(name: str, text: str, at: int, scheme: Scheme) -> tuple[str, int]:
    """The value that begins at `at`, and the position of its end."""
    kind = OPTIONS[name].kind if name in OPTIONS else ""
    if kind in _MESSAGE_KINDS:
        end = _json_end(text, at) or _message_end(text, at, scheme)
        return _message(text[at:end]), end
    if kind == "headers" and (json_end := _json_end(text, at)) is not None:
        return text[at:json_end], json_end
    end = text.find("&", at)
    end = len(text) if end < 0 else end
    # A proxy written raw decodes its own user and password.
    raw = name not in OPTIONS or (kind == "proxy" and "://" in text[at:end])
    return text[at:end] if raw else decoded(text[at:end]), end


def _json_end(text: str, at: int) -> int | None:
    """The end of the JSON text that begins at `at`, including white space.

    None where the text is no JSON, or where something other than the next option follows.
    """
    start = at + len(text[at:]) - len(text[at:].lstrip(" \t\r\n"))
    if text[start : start + 1] not in ("{", "[", '"'):
        return None
    try:
        _, end = _JSON.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    while end < len(text) and text[end] in " \t\r\n":
        end += 1
    follows = end == len(text) or (text[end] == "&" and _follows_ok(text, end + 1))
    return end if follows else None


def _follows_ok(text: str, at: int) -> bool:
    """Whether the options end at `at`, or another option begins."""
    return at == len(text) or _NAME.match(text, at) is not None


def _message_end(text: str, at: int, scheme: Scheme) -> int:
    """The end of a message that is no JSON: the next known option, or the end of the text."""
    for mark in re.finditer("&", text[at:]):
        match = _NAME.match(text, at + mark.end())
        if match is not None and (match[1] in OPTIONS or is_param(scheme, match[1])):
            return at + mark.start()
    return len(text)


def _message(text: str) -> str:
    """A message byte for byte. Only a message written wholly in percent-encoding is decoded."""
    if "%" not in text or not _ENCODED.fullmatch(text):
        return text
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return text


def decoded(text: str) -> str:
    """Percent-decode `text` if every escape is valid and the result is UTF-8; else return `text`
    unchanged."""
    if _BAD_ESCAPE.search(text):
        return text
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text

"""The meaning of a log text: colour suffixes, push marks, images, `[trans]`; and the removal of
control characters.

A strategy may log text from a peer, so this module removes every character that controls a
terminal.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Styled", "clean", "is_table", "join", "style", "translate"]

_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~]?)"
)
_DIRECTION = (0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_CONTROL = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0), *_DIRECTION} - {0x09, 0x0A})
_IMAGE = re.compile(r"`data:image/([\w.+-]+);base64,([^`]*)`")
_TRANS = re.compile(r"\[trans\](.*?)\|(.*?)\[/trans\]", re.DOTALL)
_SUFFIX = re.compile(r"\s*(?:#([0-9a-fA-F]{12}|[0-9a-fA-F]{6}))?\s*([@&]*)\s*\Z")


@dataclass(frozen=True, slots=True)
class Styled:
    """A text with its colours as `#rrggbb`, or None."""

    text: str
    color: str | None = None
    background: str | None = None
    marks: str = field(default="", compare=False)
    """The marks at the end of the text: `@` (push) and `&` (private)."""


def clean(text: str) -> str:
    """`text` without escape sequences, control characters and direction overrides."""
    if text.isascii() and text.isprintable():
        return text
    text = _SEQUENCE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return text.translate(_CONTROL)


def style(text: str) -> Styled:
    """Read a log text: its suffix becomes colours and marks."""
    text = translate(_IMAGE.sub(_image_note, text))
    found = _SUFFIX.search(text)
    if not found or not found.group().strip():
        return Styled(clean(text))
    color = found.group(1)
    body, marks = clean(text[: found.start()]), found.group(2)
    if color is None:
        return Styled(body, marks=marks)
    return Styled(body, f"#{color[:6]}", f"#{color[6:]}" if len(color) == 12 else None, marks)


def translate(text: str) -> str:
    """From `[trans]Chinese|other[/trans]`, the part in this machine's language."""
    if "[trans]" not in text:
        return text
    language = (
        os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or ""
    )
    return _TRANS.sub(r"\1" if language.startswith("zh") else r"\2", text)


def join(values: Iterable[Any]) -> str:
    """The text of `Log(*values)`: separated by spaces, a table as its JSON, a figure as a note."""
    return " ".join(_text_of(value) for value in values)


def is_table(value: object) -> bool:
    return isinstance(value, dict) and value.get("type") == "table" and bool(value.get("cols"))


def _text_of(value: object) -> str:
    if is_table(value):
        return f"`{json.dumps(value, default=str, ensure_ascii=False)}`"
    return "[figure]" if hasattr(value, "savefig") else str(value)


def _image_note(found: re.Match[str]) -> str:
    return f"[{found[1]} image, {len(found[2]) * 3 // 4} bytes]"

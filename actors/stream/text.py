"""Cutting a stream of bytes into text without tearing a character apart. Pure: no I/O, no clock."""

from __future__ import annotations

import codecs

__all__ = ["Utf8Splitter"]


class Utf8Splitter:
    """Turns the chunks of one byte stream into messages (`str` while the stream is text, else `bytes`).

    A character whose bytes arrive in two chunks is held back (three bytes at most) until the rest is
    there. The first chunk that is not UTF-8 makes the whole stream binary: from then on chunks come
    out as they are and nothing is held, so that a binary protocol never waits for a byte.
    """

    __slots__ = ("_held", "binary")

    def __init__(self) -> None:
        self._held = b""
        self.binary = False

    def feed(self, chunk: bytes) -> list[str | bytes]:
        """The messages that `chunk` completes: none or one."""
        if self.binary:
            return [chunk] if chunk else []
        data = self._held + chunk if self._held else chunk
        try:
            text, used = codecs.utf_8_decode(data, "strict", False)
        except UnicodeDecodeError:
            self.binary, self._held = True, b""
            return [data]
        self._held = data[used:]
        return [text] if text else []

    def pending(self) -> int:
        """How many bytes are held back."""
        return len(self._held)

    def flush(self) -> list[str | bytes]:
        """Give up waiting for the rest of a character: what is held, as bytes.

        The stream counts as binary afterwards, for the rest of that character would be no text either.
        """
        held, self._held = self._held, b""
        if not held:
            return []
        self.binary = True
        return [held]

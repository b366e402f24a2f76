"""Decoding a byte stream without cutting a character in two. Pure: no I/O, no clock."""

from __future__ import annotations

import codecs

__all__ = ["Utf8Splitter"]


class Utf8Splitter:
    """Turns the chunks of one byte stream into messages: `str` while the stream is text.

    When a character arrives in two chunks, its first bytes (three at most) are held back until the
    rest comes. The first chunk that is not UTF-8 makes the stream binary. From then on chunks come
    out unchanged as `bytes`, and no byte is held back, so that a binary protocol never waits.
    """

    __slots__ = ("_held", "binary")

    def __init__(self) -> None:
        self._held = b""
        self.binary = False

    def feed(self, chunk: bytes) -> list[str | bytes]:
        """The message that `chunk` completes: a list of none or one."""
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
        """Give up waiting for the rest of a character: take out the held bytes as one message.

        The stream counts as binary afterwards, because the rest of the character is no text either.
        """
        held, self._held = self._held, b""
        if not held:
            return []
        self.binary = True
        return [held]

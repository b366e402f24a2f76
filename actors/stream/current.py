"""The link that a stream has now, and what belongs to one link alone."""

from __future__ import annotations

import asyncio
import codecs

from trunkline.actors.driver import StreamDriver
from trunkline.actors.stream.text import Utf8Splitter

__all__ = ["CurrentLink", "Link"]

_DECODER = codecs.getincrementaldecoder("utf-8")


class Link:
    """One driver object with the end of its link, and the beginning of a character whose rest has not come.

    Tokens of messages belong to the link over which the messages came, and mean nothing to the next link."""

    __slots__ = ("decoder", "driver", "ended", "reason", "splitter")

    def __init__(self, driver: StreamDriver, *, splits: bool, decodes: bool) -> None:
        """`splits`: the link carries one stream of bytes, which is cut into text where it is text. `decodes`:
        such a stream is text throughout, and bytes that are no text are replaced."""
        self.driver = driver
        self.splitter = Utf8Splitter() if splits else None
        self.decoder = _DECODER(errors="replace") if decodes else None
        self.ended = asyncio.Event()
        self.reason: BaseException | None = None
        """Why the link has ended; None before that, and after an end in good order."""

    def note_end(self, reason: BaseException | None) -> None:
        """The link is gone. The first reason counts."""
        if not self.ended.is_set():
            self.reason = reason
            self.ended.set()

    def flush_character(self) -> list[str | bytes]:
        """The beginning of a character whose rest did not come; an empty list where there is none."""
        if self.splitter is not None:
            return self.splitter.flush()
        text = self.decoder.decode(b"", True) if self.decoder is not None else ""
        return [text] if text else []


class CurrentLink:
    """Where each part of a stream finds the present link. The keeper alone replaces it."""

    __slots__ = ("link",)

    def __init__(self) -> None:
        self.link: Link | None = None
        """None while there is none."""

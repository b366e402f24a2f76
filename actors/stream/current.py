"""The present link of a stream, and the state that belongs to one link alone."""

from __future__ import annotations

import asyncio
import codecs

from trunkline.actors.driver import StreamDriver
from trunkline.actors.stream.text import Utf8Splitter

__all__ = ["CurrentLink", "Link"]

_DECODER = codecs.getincrementaldecoder("utf-8")


class Link:
    """One driver object, the end of its link, and the first bytes of an incomplete character.

    Tokens of messages belong to the link over which the messages came. To the next link they mean
    nothing."""

    __slots__ = ("decoder", "driver", "ended", "reason", "splitter")

    def __init__(self, driver: StreamDriver, *, splits: bool, decodes: bool) -> None:
        """At most one argument is true.

        `splits`: the link carries a byte stream, which is decoded as long as the stream is text.
        `decodes`: the link carries a byte stream of text. Invalid bytes are replaced."""
        self.driver = driver
        self.splitter = Utf8Splitter() if splits else None
        self.decoder = _DECODER(errors="replace") if decodes else None
        self.ended = asyncio.Event()
        self.reason: BaseException | None = None
        """Why the link has ended; None before the end, and after an end in good order."""

    def note_end(self, reason: BaseException | None) -> None:
        """Note that the link is gone. The first reason counts."""
        if not self.ended.is_set():
            self.reason = reason
            self.ended.set()

    def flush_character(self) -> list[str | bytes]:
        """Take out the first bytes of an incomplete character; an empty list for none."""
        if self.splitter is not None:
            return self.splitter.flush()
        text = self.decoder.decode(b"", True) if self.decoder is not None else ""
        return [text] if text else []


class CurrentLink:
    """Holds the present link for all parts of a stream. The keeper alone replaces the link."""

    __slots__ = ("link",)

    def __init__(self) -> None:
        self.link: Link | None = None
        """None while no link is open."""

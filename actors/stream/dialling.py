"""One attempt at a link: dial, send the payloads, and word the error of a failure for users."""

from __future__ import annotations

import asyncio
import contextlib

from trunkline.actors.driver import Ending, FatalError, StreamDriver
from trunkline.actors.stream.current import CurrentLink, Link
from trunkline.actors.stream.inbound import Inbound
from trunkline.actors.stream.link import LinkLife
from trunkline.actors.stream.outbound import Outbound
from trunkline.actors.stream.serving import Serving
from trunkline.actors.stream.sink import LinkSink, SinkMaker
from trunkline.actors.stream.words import LinkWords
from trunkline.deadline import Deadline
from trunkline.errors import BrokenError, TrunklineError

__all__ = ["Dialling"]

LAST_WORDS_S = 1.5
"""Seconds to wait for the peer's reason when a payload cannot be sent. A close frame with the
reason may be on its way."""


class Dialling:
    """Makes attempts, one at a time."""

    def __init__(
        self,
        driver_class: type[StreamDriver],
        life: LinkLife,
        sinks: SinkMaker,
        current: CurrentLink,
        inbound: Inbound,
        outbound: Outbound,
        serving: Serving,
        words: LinkWords,
    ) -> None:
        self._transient = (*driver_class.transient, TimeoutError)
        self._life = life
        self._sinks = sinks
        self._current = current
        self._inbound = inbound
        self._outbound = outbound
        self._serving = serving
        self._words = words
        self._may_help = True
        """The last failure was transient: another attempt may soon succeed."""

    async def attempt(self, deadline: Deadline) -> LinkSink:
        """Dial, send the payloads and return the link's sink. Errors are worded for users."""
        sink = self._sinks.make(had_link=self._life.had_link)
        link = sink.link
        try:
            # The driver keeps the deadline and names the party that did not answer. The timeout,
            # half a second later, is for a driver that does not keep the deadline.
            async with asyncio.timeout(
                deadline.left() + 0.5 if deadline.timeout() is not None else None
            ):
                await self._open(link, deadline)
            await self._introduce(link)
        except BaseException as error:
            last_words = sink.last_words()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(link.driver.end(Ending.LOST), 1)
            self._keep_early(sink)
            raise self._words.describe_failure(error, last_words) from None
        return sink

    def is_refusal(self, error: Exception) -> bool:
        """Whether the last attempt failed for a reason that seldom goes away by itself.

        Where a link worked before, the keeper dials again even so: a refused login, a certificate
        error or HTTP 403 may be gone at a later attempt."""
        return isinstance(error, FatalError) or not self._may_help

    async def _open(self, link: Link, deadline: Deadline) -> None:
        """Open the driver, and note whether its error is transient."""
        self._may_help = True
        try:
            await link.driver.open(deadline)
        except Exception as error:
            self._may_help = isinstance(error, self._transient) and not isinstance(
                error, FatalError
            )
            raise

    async def _introduce(self, link: Link) -> None:
        """Send the payloads. Where the link ends meanwhile, raise the peer's reason for the end."""
        try:
            await self._outbound.send_payloads(link)
        except TrunklineError:
            raise
        except (OSError, EOFError) as error:
            if isinstance(error, TimeoutError):
                raise
            # The write failed, but the peer's close frame may not have been read yet.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await link.ended.wait()
            raise link.reason or _closed_at_once(link) or error from None
        if link.ended.is_set():
            raise link.reason or BrokenError("the peer closed the link at once")

    def _keep_early(self, sink: LinkSink) -> None:
        """Give the readers the early messages of a failed attempt to reconnect.

        After a failed first attempt no program can read. There the peer's last message is quoted in
        the error."""
        if self._life.had_link:
            # The sink passes on messages of the present link alone, so for this moment the link of
            # the failed attempt is the present link.
            self._current.link = sink.link
            sink.admit_before_end()
            self._inbound.flush_character(sink.link)
            self._current.link = None
            self._serving.flush_soon()


def _closed_at_once(link: Link) -> Exception | None:
    if not link.ended.is_set():
        return None
    return ConnectionError("the peer closed the link while the payload was sent")

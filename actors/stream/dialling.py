"""One attempt at a link: dial, send the payloads, and say in words why it failed."""

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
"""How long the reason is waited for when a payload cannot be sent: a close frame may be on its way."""


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
        """Another attempt may soon succeed, as far as the last attempt tells."""

    async def attempt(self, deadline: Deadline) -> LinkSink:
        """Dial and send the payloads. Raises errors in words for users."""
        sink = self._sinks.make(had_link=self._life.had_link)
        link = sink.link
        try:
            # The driver keeps the deadline itself and says in words what did not answer; the timeout is for a
            # driver that does not.
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
        """Whether the last attempt failed for a reason that seldom goes away by itself. Where the link had
        worked, even a refused login, a certificate or HTTP 403 may be gone at a later attempt."""
        return isinstance(error, FatalError) or not self._may_help

    async def _open(self, link: Link, deadline: Deadline) -> None:
        self._may_help = True
        try:
            await link.driver.open(deadline)
        except Exception as error:
            self._may_help = isinstance(error, self._transient) and not isinstance(
                error, FatalError
            )
            raise

    async def _introduce(self, link: Link) -> None:
        """Send the payloads. A link that ends meanwhile fails with the peer's reason for it."""
        try:
            await self._outbound.send_payloads(link)
        except TrunklineError:
            raise
        except (OSError, EOFError) as error:
            if isinstance(error, TimeoutError):
                raise
            with contextlib.suppress(
                TimeoutError
            ):  # what the peer said is perhaps still on its way
                async with asyncio.timeout(LAST_WORDS_S):
                    await link.ended.wait()
            raise link.reason or _closed_at_once(link) or error from None
        if link.ended.is_set():
            raise link.reason or BrokenError("the peer closed the link at once")

    def _keep_early(self, sink: LinkSink) -> None:
        """A link that worked before could not be had again: what the peer said meanwhile is read all the
        same. After a first attempt no program could read; the peer's last words are in the error."""
        if self._life.had_link:
            self._current.link = sink.link  # the buffer takes messages of the present link only
            sink.admit_before_end()
            self._inbound.flush_character(sink.link)
            self._current.link = None
            self._serving.flush_soon()


def _closed_at_once(link: Link) -> Exception | None:
    if not link.ended.is_set():
        return None
    return ConnectionError("the peer closed the link while the payload was sent")

"""Acknowledging after the work: what `Message.ack`, `nak`, `reject` and `term` do to a message that its
reader keeps (`receive(ack=False)`).

A kept message is in `Holder.kept` of the buffer. Three things can end that: the reader's verdict, which comes
here; the end of the holder, which queues the message again; the end of this worker, after which the message
broker sends it again. A verdict may be faster than the word that the message is kept, for it comes another
way; so it waits for that word for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from trunkline.actors.driver import StreamDriver
from trunkline.actors.stream.buffer import Buffer
from trunkline.actors.stream.holder import Kept
from trunkline.errors import BrokenError, RemoteError, Unsupported

__all__ = ["VERDICTS", "Settling"]

VERDICTS = ("ack", "nak", "reject")
_WORD_S = 0.5
"""How long a verdict waits for the word that its message is kept."""
_LOOK_S = 0.005
_LONGEST_DELAY_MS = 86_400_000.0


class LinkView(Protocol):
    """What is needed of a link: tokens belong to one, and mean nothing to the next."""

    driver: StreamDriver


class Settling:
    """See the module. `link` gives the present link, `hear` takes in what holders have sent by their pipes,
    `changed` has the buffer served after a message came back to it."""

    def __init__(
        self,
        buffer: Buffer,
        link: Callable[[], LinkView | None],
        hear: Callable[[bytes], None],
        changed: Callable[[], None],
    ) -> None:
        self._buffer = buffer
        self._link = link
        self._hear = hear
        self._changed = changed

    async def settle(self, ticket: Any, verdict: Any, delay_ms: Any) -> None:
        """Carry out a verdict. BrokenError where the message is not kept here (any more) or its link is
        gone, Unsupported where the protocol has no such verdict."""
        if (
            verdict not in VERDICTS
            or not isinstance(ticket, int)
            or not isinstance(delay_ms, (int, float))
        ):
            raise RemoteError("a malformed SETTLE arrived")
        message = await self._find(ticket)
        if message is None:
            raise BrokenError(
                "nobody keeps this message any more: its worker was replaced, or it was settled before; "
                "where it was not settled, the message broker sends it again"
            )
        delay_ms = min(max(0.0, delay_ms), _LONGEST_DELAY_MS)
        if verdict == "ack":
            self._acknowledge(ticket, message)
        elif verdict == "nak":
            self._give_back(ticket, message, delay_ms)
        else:
            self._reject(ticket, message)

    async def _find(self, ticket: int) -> Kept | None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _WORD_S
        while (message := self._buffer.kept(ticket)) is None and loop.time() < until:
            for holder in list(self._buffer.holders):
                self._hear(holder)
            if self._buffer.kept(ticket) is None:
                await asyncio.sleep(_LOOK_S)
        return message

    def _acknowledge(self, ticket: int, message: Kept) -> None:
        self._buffer.let_go(ticket)
        token, link = _token(message), self._link()
        message.run.done = True  # should it come again: the work is done, nobody has to see it
        if token is None:
            return
        if link is None or link is not message.run.link:
            raise BrokenError(
                "the link was lost after this message came, so the acknowledgement could not be sent; where "
                "the message broker sends it again and it can be known again, it is acknowledged then"
            )
        link.driver.settle([token])

    def _give_back(self, ticket: int, message: Kept, delay_ms: float) -> None:
        token, link = _token(message), self._link()
        living = link if token is not None and link is message.run.link else None
        if living is not None and "nak" in living.driver.verdicts:
            self._buffer.let_go(ticket)
            living.driver.refuse(token, "nak", delay_ms)
            return
        # The protocol cannot give it back, or the link is gone: it is read again from here.
        asyncio.get_running_loop().call_later(delay_ms / 1000, self._queue_again, ticket)

    def _queue_again(self, ticket: int) -> None:
        self._buffer.give_back(ticket)
        self._changed()

    def _reject(self, ticket: int, message: Kept) -> None:
        token, link = _token(message), self._link()
        if link is None or link is not message.run.link:
            raise BrokenError(
                "the link was lost after this message came, so it could not be rejected; reject it again "
                "when the link is there, or wait until it comes again"
            )
        if token is None or "reject" not in link.driver.verdicts:
            scheme = link.driver.address.scheme
            raise Unsupported(
                f"{scheme}:// cannot reject a message: write it where failed messages belong, then ack() it"
            )
        self._buffer.let_go(ticket)
        message.run.done = True
        link.driver.refuse(token, "reject", 0.0)


def _token(message: Kept) -> Any:
    owing = message.run.owing()
    return owing[0] if owing else None

"""Verdicts on kept messages: `Message.ack`, `nak`, `reject` and `term` after `receive(ack=False)`.

A kept message is in `Holder.kept` of the buffer until one of three events:

* The reader's verdict comes. `Settling` carries it out.
* The holder leaves. The buffer queues the message again.
* This worker ends. The message broker sends the message again.

Race: a verdict and the KEEP of its message come by different sockets. So a verdict waits a moment
for the KEEP. All methods run on the worker's event loop.
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
"""Seconds that a verdict waits for the KEEP of its message."""
_LOOK_S = 0.005
_LONGEST_DELAY_MS = 86_400_000.0
"""One day."""


class LinkView(Protocol):
    """The part of a link that `Settling` uses. A token is valid for the link that brought it."""

    driver: StreamDriver


class Settling:
    """Carries out verdicts.

    `link()` returns the present link. `hear(holder)` handles messages that wait on a holder's pipe.
    `changed()` has the buffer served, after a message was queued again."""

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
        """Carry out a verdict on the message of `ticket`.

        `delay_ms`: after `nak`, milliseconds before the message is read again. Raises BrokenError
        where no holder keeps the message or its link is gone, Unsupported where the protocol has no
        such verdict, RemoteError for malformed arguments."""
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
        """The kept message of a ticket; None where no KEEP comes within `_WORD_S`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _WORD_S
        while (message := self._buffer.kept(ticket)) is None and loop.time() < until:
            for holder in list(self._buffer.holders):
                self._hear(holder)
            if self._buffer.kept(ticket) is None:
                await asyncio.sleep(_LOOK_S)
        return message

    def _acknowledge(self, ticket: int, message: Kept) -> None:
        """Acknowledge a message to the message broker (verdict `ack`)."""
        self._buffer.let_go(ticket)
        token, link = _token(message), self._link()
        # If the message comes again over the next link, it is acknowledged there without a reader.
        message.run.done = True
        if token is None:
            return
        if link is None or link is not message.run.link:
            raise BrokenError(
                "the link was lost after this message came, so the acknowledgement could not be sent; where "
                "the message broker sends it again and it can be known again, it is acknowledged then"
            )
        link.driver.settle([token])

    def _give_back(self, ticket: int, message: Kept, delay_ms: float) -> None:
        """Have a message read again after the delay (verdict `nak`)."""
        token, link = _token(message), self._link()
        living = link if token is not None and link is message.run.link else None
        if living is not None and "nak" in living.driver.verdicts:
            self._buffer.let_go(ticket)
            living.driver.refuse(token, "nak", delay_ms)
            return
        # Where the protocol has no `nak`, or the link is gone, the worker queues the message again.
        asyncio.get_running_loop().call_later(delay_ms / 1000, self._queue_again, ticket)

    def _queue_again(self, ticket: int) -> None:
        self._buffer.give_back(ticket)
        self._changed()

    def _reject(self, ticket: int, message: Kept) -> None:
        """Tell the message broker never to send the message again (verdict `reject`)."""
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

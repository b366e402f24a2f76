"""Going on to read somewhere else: what `Connection.seek` does to a link, its buffer and its holders.

The driver moves first, or refuses and leaves everything as it is. Then the messages from before are
discarded: those in the buffer at once, those sent ahead when their holders have given them back. The seek
ends when all have, so that whoever reads next, by whatever holder, gets what is at the new place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from trunkline.actors.driver import StreamDriver
from trunkline.actors.stream.buffer import Buffer
from trunkline.deadline import Deadline
from trunkline.errors import BrokenError, OperationTimeout, TrunklineError
from trunkline.wire.place import Place

__all__ = ["Seeking"]

_LOOK_S = 0.002
_NO_ANSWER = "{peer} did not say in the time allowed where that is; reading goes on where it was"


class LinkView(Protocol):
    """What is needed of a link."""

    driver: StreamDriver


class Seeking:
    """See the module. `link` gives the present link, `moved` is called when old messages were discarded."""

    def __init__(
        self, buffer: Buffer, link: Callable[[], LinkView | None], moved: Callable[[], None]
    ) -> None:
        self._buffer = buffer
        self._link = link
        self._moved = moved
        self._one_at_a_time = asyncio.Lock()
        self._moving: set[asyncio.Task[None]] = set()

    async def seek(self, place: Place, deadline: Deadline, peer: str) -> None:
        """Read on at this place. RefusedError, BrokenError or OperationTimeout."""
        moving = asyncio.create_task(self._move(place, deadline, peer))
        self._moving.add(moving)
        moving.add_done_callback(self._moving.discard)
        # What the driver has moved must be discarded here in any case, so its answer is always waited for.
        done, _ = await asyncio.wait((moving,), timeout=deadline.left())
        if not done:
            moving.add_done_callback(_hear)
            raise OperationTimeout(_NO_ANSWER.format(peer=peer))
        moving.result()
        await self._until_given_back(deadline)

    async def _move(self, place: Place, deadline: Deadline, peer: str) -> None:
        async with self._one_at_a_time:
            link = self._link()
            if link is None:
                raise BrokenError(f"the link to {peer} is down; nothing was sought")
            try:
                void = await link.driver.seek(place, deadline)
            except TrunklineError:
                raise
            except TimeoutError:
                raise OperationTimeout(_NO_ANSWER.format(peer=peer)) from None
            except (OSError, EOFError) as error:
                raise BrokenError(f"the link to {peer} broke: {error}") from None
            self._buffer.discard(void)
            self._moved()

    async def _until_given_back(self, deadline: Deadline) -> None:
        while self._buffer.recalling:
            if deadline.expired():
                raise OperationTimeout(
                    "the place was found, and reading goes on there; but another object that reads from this "
                    "connection is stopped, and has not given back what was sent ahead to it"
                )
            await asyncio.sleep(_LOOK_S)


def _hear(moving: asyncio.Task[None]) -> None:
    """Nobody waits any more for how it ended."""
    if not moving.cancelled():
        moving.exception()

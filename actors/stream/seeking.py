"""Seeking (`Connection.seek`): reading on at another place of the peer's log.

The driver moves first, or refuses, and then nothing changes. After the driver has moved, messages
from before are discarded. Queued messages go at once. Messages that were sent ahead go when their
holders have answered the recall. The seek ends after all answers, so the next read of any holder
gets a message from the new place. All methods run on the worker's event loop.
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
    """The part of a link that `Seeking` uses."""

    driver: StreamDriver


class Seeking:
    """Moves the driver of the present link and discards messages from before.

    `link()` returns the present link. `moved()` is called when old messages were discarded."""

    def __init__(
        self, buffer: Buffer, link: Callable[[], LinkView | None], moved: Callable[[], None]
    ) -> None:
        self._buffer = buffer
        self._link = link
        self._moved = moved
        self._one_at_a_time = asyncio.Lock()
        self._moving: set[asyncio.Task[None]] = set()

    async def seek(self, place: Place, deadline: Deadline, peer: str) -> None:
        """Read on at `place`. Raises RefusedError, BrokenError or OperationTimeout.

        `peer`: the address as errors show it."""
        moving = asyncio.create_task(self._move(place, deadline, peer))
        self._moving.add(moving)
        moving.add_done_callback(self._moving.discard)
        # The move goes on after the deadline: if the driver moves late, the messages from before
        # must be discarded even then.
        done, _ = await asyncio.wait((moving,), timeout=deadline.left())
        if not done:
            moving.add_done_callback(_hear)
            raise OperationTimeout(_NO_ANSWER.format(peer=peer))
        moving.result()
        await self._until_given_back(deadline)

    async def _move(self, place: Place, deadline: Deadline, peer: str) -> None:
        """Move the driver, then discard messages from before in the buffer."""
        # Two seeks at the same time would discard each other's messages.
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
        """Wait until all recalls are answered. OperationTimeout at the deadline."""
        while self._buffer.recalling:
            if deadline.expired():
                raise OperationTimeout(
                    "the place was found, and reading goes on there; but another object that reads from this "
                    "connection is stopped, and has not given back what was sent ahead to it"
                )
            await asyncio.sleep(_LOOK_S)


def _hear(moving: asyncio.Task[None]) -> None:
    """Fetch the exception of a late move, so that asyncio does not log it as never retrieved."""
    if not moving.cancelled():
        moving.exception()

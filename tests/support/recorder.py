"""A sink that records, for tests of drivers without a worker around them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from trunkline.actors.driver import StreamDriver
from trunkline.address import parse_address
from trunkline.deadline import Deadline

__all__ = ["Recorder", "opened", "some_turns"]


class Recorder:
    """What a driver told its sink, and ways to wait for it. Made inside the loop it is used on."""

    def __init__(self) -> None:
        self.received: list[str | bytes] = []
        self.batches: list[int] = []
        self.losses: list[BaseException | None] = []
        self.warnings: list[str] = []
        self.drops = 0
        self._news = asyncio.Event()

    def message(self, data: str | bytes) -> None:
        self.messages([data])

    def messages(self, batch: Sequence[str | bytes]) -> None:
        self.received.extend(batch)
        self.batches.append(len(batch))
        self._news.set()

    def lost(self, reason: BaseException | None) -> None:
        self.losses.append(reason)
        self._news.set()

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self._news.set()

    def dropped(self, count: int) -> None:
        self.drops += count
        self._news.set()

    @property
    def stream(self) -> bytes:
        """All that was received, as one piece."""
        return b"".join(part.encode() if isinstance(part, str) else part for part in self.received)

    async def until(self, happened: Callable[[], object], seconds: float = 10.0) -> None:
        """Wait until `happened()` is true; it is asked again after each event."""
        async with asyncio.timeout(seconds):
            while not happened():
                self._news.clear()
                await self._news.wait()

    async def wait_received(self, count: int) -> list[str | bytes]:
        await self.until(lambda: len(self.received) >= count)
        return self.received

    async def wait_lost(self) -> BaseException | None:
        await self.until(lambda: self.losses)
        assert len(self.losses) == 1, "lost is reported once"
        return self.losses[0]


async def opened(
    kind: Callable[..., StreamDriver],
    address: str,
    sink: Recorder,
    seconds: float = 10.0,
    **options: object,
) -> StreamDriver:
    """A driver for the address with these options, after a successful open."""
    driver = kind(parse_address(address, options), sink)
    await driver.open(Deadline(seconds))
    return driver


async def some_turns(count: int = 300) -> None:
    """Let the loop look at its sockets so often that what is going to happen by itself has happened."""
    for _ in range(count):
        await asyncio.sleep(0)

"""The timers of one link: keepalives and the end of a link without data."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.recorder import Recorder
from tests.unit.stream.rig import driver_class
from trunkline.actors.driver import StreamDriver
from trunkline.actors.net.liveness import Traffic
from trunkline.actors.stream.link_watch import LinkWatch
from trunkline.address import parse_address
from trunkline.errors import BrokenError, OperationTimeout, Unsupported

LIMIT_S = 20.0


class Watched:
    """A `LinkWatch`, and notes of what it did."""

    def __init__(self, options: str, **attributes: Any) -> None:
        self.news = asyncio.Event()
        self.pings = 0
        self.texts: list[str] = []
        self.losses: list[BaseException] = []
        self.traffic = Traffic(0)
        self.paused = False
        self.fails: BaseException | None = None
        self.sink = Recorder()
        address = parse_address("ws://peer:1|" + options)
        self.driver: StreamDriver = driver_class(**attributes)(address, self.sink)
        self.watch = LinkWatch(
            address,
            self.driver,
            send=self._send,
            lost=self._lost,
            counted=lambda: self.traffic,
            paused=lambda: self.paused,
            message_at=lambda: self.message_at,
        )
        self.message_at = time.monotonic()

    async def _send(self, text: str, seconds: float) -> None:
        if self.fails is not None:
            raise self.fails
        self.texts.append(text)
        self.news.set()

    def _lost(self, reason: BaseException) -> None:
        self.losses.append(reason)
        self.news.set()

    async def until(self, happened: Callable[[], object]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not happened():
                self.news.clear()
                await self.news.wait()


def run(body: Callable[[Watched], Awaitable[None]], options: str, **attributes: Any) -> None:
    async def whole() -> None:
        watched = Watched(options, **attributes)
        jobs = [asyncio.create_task(job) for job in watched.watch.jobs()]
        try:
            await body(watched)
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)

    asyncio.run(whole())


def test_without_options_nothing_runs() -> None:
    async def body(watched: Watched) -> None:
        assert watched.watch.jobs() == []
        assert watched.watch.unsaid() is None

    run(body, "pingInterval=0")


def test_a_text_is_sent_again_and_again_while_the_peer_answers() -> None:
    async def body(watched: Watched) -> None:
        def answer() -> bool:
            watched.traffic = Traffic(len(watched.texts))
            return len(watched.texts) >= 3

        await watched.until(answer)
        assert set(watched.texts) == {"are you there?"}
        assert not watched.losses

    run(body, "pingInterval=20&pingType=text&pingMessage=are you there?")


def test_a_peer_that_answers_nothing_is_lost() -> None:
    async def body(watched: Watched) -> None:
        await watched.until(lambda: watched.losses)
        assert "nothing came from the peer for 0.05 s after a ping" in str(watched.losses[0])

    run(body, "pingInterval=20&pingType=text&pingTimeout=50")


def test_a_peer_that_is_not_read_from_is_not_lost() -> None:
    async def body(watched: Watched) -> None:
        watched.paused = True
        await watched.until(lambda: len(watched.texts) >= 10)  # far more than the answer may take
        assert not watched.losses

    run(body, "pingInterval=20&pingType=text&pingTimeout=50")


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), BrokenError("the link broke")])
def test_a_text_that_breaks_the_link_loses_it(error: Exception) -> None:
    async def body(watched: Watched) -> None:
        watched.fails = error
        await watched.until(lambda: watched.losses)
        assert watched.losses == [error]

    run(body, "pingInterval=20&pingType=text&pingTimeout=0")


def test_a_text_that_is_refused_is_told_and_loses_nothing() -> None:
    async def body(watched: Watched) -> None:
        watched.fails = Unsupported("no text here")
        await watched.sink.until(lambda: watched.sink.warnings)
        assert watched.sink.warnings[0] == "the keepalive was refused: no text here"
        assert not watched.losses

    run(body, "pingInterval=20&pingType=text&pingTimeout=0")


def test_a_ping_of_the_protocol_that_breaks_the_link_loses_it() -> None:
    async def broken(_: object) -> None:
        raise OperationTimeout("the ping was not taken")

    async def body(watched: Watched) -> None:
        await watched.until(lambda: watched.losses)
        assert str(watched.losses[0]) == "the ping was not taken"

    run(body, "pingInterval=20", ping=broken)


def test_a_link_without_data_ends() -> None:
    async def body(watched: Watched) -> None:
        await watched.until(lambda: watched.losses)
        assert str(watched.losses[0]) == "no data for 60 ms (option idle)"

    run(body, "idle=60")


async def pinged(_: object) -> None:
    """A ping of the protocol."""


@pytest.mark.parametrize(
    ("options", "attributes", "words"),
    [
        ("pingMessage=x&pingInterval=0", {}, "give pingInterval= beside it"),
        ("pingMessage=x&pingInterval=20", {"ping": pinged}, "give pingType=text"),
        ("pingMessage=x&pingInterval=20&pingType=text", {"ping": pinged}, None),
        ("pingMessage=x&pingInterval=20", {}, None),  # the protocol has no ping of its own
    ],
)
def test_a_text_that_will_never_be_sent_is_told(
    options: str, attributes: dict[str, Any], words: str | None
) -> None:
    async def whole() -> None:
        said = Watched(options, **attributes).watch.unsaid()
        assert said is None if words is None else words in str(said)

    asyncio.run(whole())

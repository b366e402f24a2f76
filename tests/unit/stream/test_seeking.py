"""Reading on at another place of a log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.actors.stream.seeking import Seeking
from trunkline.deadline import Deadline
from trunkline.errors import BrokenError, OperationTimeout, RefusedError, TrunklineError
from trunkline.wire.place import Place

PLACE = Place("offset", 5)
PEER = "kafka://peer"


class Stage:
    """A driver that answers with `answer`, and a buffer that notes what is discarded."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked: list[Place] = []
        self.running = self.most_running = 0
        self.events: list[str] = []
        self.buffer = SimpleNamespace(
            recalling=False, discard=lambda void: self.events.append(f"discard {void}")
        )
        self.link: Any = SimpleNamespace(driver=self)
        self.seeking = Seeking(
            self.buffer,  # type: ignore[arg-type]
            lambda: self.link,
            lambda: self.events.append("moved"),
        )

    async def seek(self, place: Place, deadline: Deadline) -> str:
        self.asked.append(place)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await self.may_answer.wait()
        self.running -= 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return "void"


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 20))


def test_the_driver_moves_and_then_what_is_void_is_discarded() -> None:
    async def body() -> None:
        stage = Stage()
        await stage.seeking.seek(PLACE, Deadline(10), PEER)
        assert stage.asked == [PLACE]
        assert stage.events == ["discard void", "moved"]

    run(body)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (RefusedError("no such topic"), RefusedError, "no such topic"),
        (TimeoutError(), OperationTimeout, PEER),
        (ConnectionResetError("reset"), BrokenError, f"the link to {PEER} broke: reset"),
    ],
)
def test_what_the_driver_cannot_do_is_told_and_nothing_is_discarded(
    answer: Exception, error: type[TrunklineError], words: str
) -> None:
    async def body() -> None:
        stage = Stage(answer)
        with pytest.raises(error, match=words):
            await stage.seeking.seek(PLACE, Deadline(10), PEER)
        assert stage.events == []

    run(body)


def test_without_a_link_nothing_is_sought() -> None:
    async def body() -> None:
        stage = Stage()
        stage.link = None
        with pytest.raises(BrokenError, match="is down; nothing was sought"):
            await stage.seeking.seek(PLACE, Deadline(10), PEER)
        assert stage.asked == []

    run(body)


def test_a_move_that_comes_too_late_is_carried_to_its_end() -> None:
    """The driver has moved: what came from the former place has to go in any case."""

    async def body() -> None:
        stage = Stage()
        stage.may_answer.clear()
        with pytest.raises(OperationTimeout):
            await stage.seeking.seek(PLACE, Deadline(0.02), PEER)
        assert stage.events == []
        stage.may_answer.set()
        while not stage.events:  # noqa: ASYNC110 - the task that nobody waits for is private
            await asyncio.sleep(0.001)
        assert stage.events == ["discard void", "moved"]

    run(body)


def test_one_move_at_a_time() -> None:
    async def body() -> None:
        stage = Stage()
        stage.may_answer.clear()
        both = [
            asyncio.create_task(stage.seeking.seek(Place("offset", n), Deadline(10), PEER))
            for n in (1, 2)
        ]
        await asyncio.sleep(0)
        stage.may_answer.set()
        await asyncio.gather(*both)
        assert stage.most_running == 1
        assert stage.asked == [Place("offset", 1), Place("offset", 2)]

    run(body)


def test_it_ends_when_all_holders_have_given_back() -> None:
    async def body() -> None:
        stage = Stage()
        stage.buffer.recalling = True
        seeking = asyncio.create_task(stage.seeking.seek(PLACE, Deadline(10), PEER))
        while "moved" not in stage.events:  # noqa: ASYNC110 - it tells by no event
            await asyncio.sleep(0.001)
        assert not seeking.done()
        stage.buffer.recalling = False
        await seeking

    run(body)


def test_a_holder_that_is_stopped_is_named() -> None:
    async def body() -> None:
        stage = Stage()
        stage.buffer.recalling = True
        with pytest.raises(OperationTimeout, match=r"another object .* is stopped"):
            await stage.seeking.seek(PLACE, Deadline(0.05), PEER)

    run(body)

"""What the reader's thread tells the event loop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.unit.drivers.kafka.owner import KeepingOwner
from trunkline.actors.drivers.kafka.loop_side import LoopSide


async def _in_thread(call: Any) -> None:
    await asyncio.to_thread(call)
    await asyncio.sleep(0)  # what the thread has scheduled


def test_the_owner_is_told_on_the_loop() -> None:
    async def body() -> None:
        loop_side, owner = LoopSide(asyncio.get_running_loop()), KeepingOwner()
        loop_side.owner = owner
        lost = ConnectionError("gone")
        threads = []

        def tell() -> None:
            loop_side.warn("careful")
            loop_side.pass_over(3)
            loop_side.report_loss(lost)
            loop_side.call(lambda: threads.append(threading.current_thread()))

        await _in_thread(tell)
        assert (owner.warnings, owner.drops, owner.losses) == (["careful"], 3, [lost])
        assert threads == [threading.current_thread()]

    asyncio.run(body())


def test_without_an_owner_nothing_is_told() -> None:
    async def body() -> None:
        loop_side = LoopSide(asyncio.get_running_loop())

        def tell() -> None:
            loop_side.warn("careful")
            loop_side.pass_over(3)
            loop_side.report_loss(ConnectionError())

        await _in_thread(tell)

    asyncio.run(body())


def test_a_closed_loop_is_no_error() -> None:
    loop = asyncio.new_event_loop()
    loop_side = LoopSide(loop)
    loop.close()
    loop_side.call(pytest.fail)


def test_an_answer_is_a_result_or_an_error() -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        loop_side = LoopSide(loop)
        good, bad, given_up = (loop.create_future() for _ in range(3))
        given_up.cancel()
        error = ValueError("bad")

        def answer() -> None:
            loop_side.answer(good, None, 7)
            loop_side.answer(given_up, None, 8)
            try:
                raise error
            except ValueError as caught:
                loop_side.answer(bad, caught)

        await _in_thread(answer)
        assert error.__traceback__ is None, "its frames would keep the consumer alive"
        assert await good == 7
        with pytest.raises(ValueError, match="bad"):
            await bad

    asyncio.run(body())

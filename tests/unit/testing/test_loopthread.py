"""The thread that the tools run in gives results, errors and an end to every wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from trunkline.testing.loopthread import LoopThread, News
from trunkline.testing.waiting import Background


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread("a tool")
    yield thread
    thread.stop()


async def sum_of_two() -> int:
    await asyncio.sleep(0)
    return 2


class TestLoopThread:
    def test_a_job_gives_its_result_or_raises(self, thread: LoopThread) -> None:
        async def fail() -> None:
            raise TimeoutError("the job's own")

        assert thread.run(sum_of_two) == 2
        with pytest.raises(TimeoutError, match="the job's own"):
            thread.run(fail)

    def test_a_job_that_does_not_end_is_cancelled_and_told_of(self, thread: LoopThread) -> None:
        cancelled = threading.Event()

        async def wait_for_ever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        with pytest.raises(AssertionError, match="a tool did not answer in"):
            thread.run(wait_for_ever, 0.05)
        assert cancelled.wait(10)

    def test_its_own_thread_may_not_wait_for_it(self, thread: LoopThread) -> None:
        async def ask_itself() -> int:
            return thread.run(sum_of_two)

        with pytest.raises(RuntimeError, match="would wait for itself"):
            thread.run(ask_itself)

    def test_stopping_cancels_what_runs_and_is_idempotent(self) -> None:
        thread, ended = LoopThread("a tool"), threading.Event()

        async def run_on() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async def start() -> asyncio.Task[None]:
            task = asyncio.create_task(run_on())
            await asyncio.sleep(0)
            return task

        task = thread.run(start)
        thread.stop()
        thread.stop()
        assert ended.is_set()
        assert task.cancelled()
        assert thread.is_stopped
        with pytest.raises(RuntimeError, match="a tool was stopped"):
            thread.run(sum_of_two)


class TestNews:
    def test_a_change_wakes_those_who_wait(self) -> None:
        news, found = News(), list[int]()
        waiting = Background(
            lambda: news.wait(lambda: found == [1], 10, lambda: "nothing was found")
        )
        news.tell()
        news.tell(lambda: found.append(1))
        assert waiting.result() is None

    def test_a_wait_ends_with_what_there_was(self) -> None:
        with pytest.raises(AssertionError, match="only 3"):
            News().wait(lambda: False, 0.02, lambda: "only 3")
